"""Continuing texts with a causal model, with a cache of keys and values.

All of a prompt but its last token is read at once; then the last token is fed like every token
after it, each choosing the next:

    prompt  x0 x1 x2 x3        read x0 x1 x2, feed x3 -> a, feed a -> b, ..
"""

from collections.abc import Callable, Sequence

import numpy as np

from glm_jax.generation.engine import Engine, on_host
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt, check_prompts
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Slots

OnToken = Callable[[int, int], None]


def generate_rows(
    engine: Engine,
    rows: Sequence[Sequence[int]],
    *,
    limits: Limits,
    sampling: Sampling,
    on_token: OnToken | None = None,
) -> list[list[int]]:
    """Continues every row.

    Args:
      engine: of a causal model.
      rows: B prompts of ids, one id at least.
      limits: which ids end an answer, and its longest length.
      sampling: how ids are chosen.
      on_token: called with the row and the id as soon as an id is there, step by step, the rows of
        a step in their order.

    Returns:
      The new ids of each row.

    Raises:
      UserError: a model that is not causal, no prompt, an empty one, one with an id outside the
        vocabulary, or one that is too long together with its answer.
    """
    check_prompts(rows, engine.config, limits, sampling)
    prompts = [Prompt(row, limits, sampling) for row in rows]
    slots = engine.start(prompts)
    if on_token is None:
        slots = engine.run(slots)
    else:
        slots = _run_aloud(engine, slots, set(limits.end_ids), on_token)
    return [answer for (answer,) in engine.answers(slots, prompts)]


def _run_aloud(engine: Engine, slots: Slots, end_ids: set[int], on_token: OnToken) -> Slots:
    before = np.zeros(len(slots.count), np.int32)
    while on_host(slots.running).any():
        slots = engine.run(slots, 1)
        ids, count = on_host(slots.chosen), on_host(slots.count)
        for row in np.flatnonzero(count > before):
            if (id_ := int(ids[row, count[row] - 1])) not in end_ids:
                on_token(int(row), id_)
        before = count
    return slots
