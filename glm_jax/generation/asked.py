"""What prompts ask of a decoding: the sizes of its slots, and the arrays of their rules.

prompts -> room_for(..)   sizes       -> arrays_of(..)   blanks, numbers of answers, ids, rules
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.config.model import ResolvedModel
from glm_jax.generation.bans import host_array
from glm_jax.generation.cache import bucket, power_of_two
from glm_jax.generation.options import BeamSearch
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.slots import Asked, Room, Rules, fill_up, ids_seen

if TYPE_CHECKING:
    from glm_jax.generation.prompts import Prompt


def room_for(config: ResolvedModel, prompts: Sequence["Prompt"]) -> Room:
    """The sizes that prompts need. `Engine.accept` writes a whole padded answer: it needs more."""
    searches = any(isinstance(prompt.how, BeamSearch) for prompt in prompts)
    longest = bucket(max(prompt.limits.max_new_tokens for prompt in prompts))
    ends = max(len(prompt.limits.end_ids) for prompt in prompts)
    if not config.fills_blanks:
        needed = max(len(one.ids) + one.limits.max_new_tokens for one in prompts)
        return Room(bucket(needed), longest, 1, ends)
    blanks = power_of_two(max(len(prompt.blanks) for prompt in prompts))
    needed = max(len(one.ids) + len(one.blanks) * one.limits.max_new_tokens for one in prompts)
    if searches:
        return Room(bucket(needed + longest), longest, blanks, ends)
    return Room(bucket(needed), bucket(needed), blanks, ends)


def arrays_of(
    config: ResolvedModel, prompts: Sequence["Prompt"], room: Room, batch_size: int, copies: int = 0
) -> Asked:
    """What prompts ask for, as arrays on the host of `batch_size` slots.

    `copies` is that of `row_keys`.
    """
    rows = [prompt.ids for prompt in prompts]
    blanks = np.zeros((batch_size, room.blanks), np.int32)
    ends = np.full((batch_size, room.ends), -1, np.int32)
    for index, prompt in enumerate(prompts):
        blanks[index, : len(prompt.blanks)] = prompt.blanks
        ends[index, : len(prompt.limits.end_ids)] = prompt.limits.end_ids
    fills = config.fills_blanks
    numbers = [len(prompt.blanks) if fills else 1 for prompt in prompts]
    searches = [isinstance(prompt.how, BeamSearch) for prompt in prompts]
    hows = [
        Sampling(min_new_tokens=how.min_new_tokens, no_repeat_ngram=how.no_repeat_ngram)
        if isinstance(how, BeamSearch)
        else how
        for how in (prompt.how for prompt in prompts)
    ]
    others = batch_size - len(prompts)
    # For a search, code for a shortest length costs nothing, and one program serves all.
    chooser = Chooser.create(
        [*hows, *[Sampling()] * others],
        row_keys([how.seed for how in hows], rows, batch_size, copies),
        bans_ends=any(searches),
    )
    limits = [prompt.limits for prompt in prompts]
    rules = Rules(
        fill_up([prompt.start_id for prompt in prompts], batch_size),
        host_array(ends),
        fill_up([one.max_new_tokens for one in limits], batch_size),
        fill_up(
            [
                number * one.max_new_tokens
                if one.max_total_tokens is None
                else one.max_total_tokens
                for number, one in zip(numbers, limits, strict=True)
            ],
            batch_size,
        ),
        chooser,
    )
    seen = ids_seen(rows, batch_size, config.vocab_size) if chooser.penalises else None
    return Asked(host_array(blanks), fill_up(numbers, batch_size), seen, rules)
