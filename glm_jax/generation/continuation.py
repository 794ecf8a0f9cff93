"""Continuing texts, with a KV cache.

The prefill takes all of a prompt but its last token. Then the last token and every new token are
fed one by one, each giving the next:

    prompt  x0 x1 x2 x3        prefill x0 x1 x2, feed x3 -> a, feed a -> b, ..

A model that fills blanks continues a prompt by filling its blank (`blank_filling`).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.prompts import text_prompts
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Slots
from glm_jax.sharding.mesh import on_host

if TYPE_CHECKING:
    from glm_jax.generation.engine import Engine

OnToken = Callable[[int, int], None]


def generate_rows(
    engine: "Engine",
    rows: Sequence[Sequence[int]],
    *,
    limits: Limits,
    sampling: Sampling,
    on_token: OnToken | None = None,
    marks: Marks | None = None,
) -> list[list[int]]:
    """Continues every row.

    Args:
      engine: of a causal model, or of one that fills blanks.
      rows: prompts of at least one id each.
      limits: which ids end an answer, and its longest length.
      sampling: how ids are chosen.
      on_token: called after each step for each new id that is not an end id, with the index of its
        row and the id; within a step in the order of the rows.
      marks: the special ids of a model that fills blanks (`prompts.text_prompts`).

    Returns:
      The new ids of each row.

    Raises:
      UserError: a model that only fills blanks, no prompt, an empty prompt, an id outside the
        vocabulary, or a prompt that is too long together with its answer.
    """
    prompts = text_prompts(rows, engine.config, limits, sampling, marks)
    slots = engine.start(prompts)
    if on_token is None:
        slots = engine.run(slots)
    else:
        slots = _run_by_steps(engine, slots, set(limits.end_ids), on_token)
    return [answer for (answer,) in engine.answers(slots, prompts)]


def _run_by_steps(engine: "Engine", slots: Slots, end_ids: set[int], on_token: OnToken) -> Slots:
    """As `Engine.run`, one step at a time, reporting each new id."""
    before = np.zeros(len(slots.count), np.int32)
    while True:
        slots = engine.run(slots, 1)
        ids, count = on_host(slots.chosen), on_host(slots.count)
        grown = np.flatnonzero(count > before)
        if not grown.size:
            return slots
        for row in grown:
            if (id_ := int(ids[row, count[row] - 1])) not in end_ids:
                on_token(int(row), id_)
        before = count
