"""Filling the blanks of texts, left to right, with a KV cache (GLM, section 2.1).

Part A, with its masks, runs once. Then the spans are generated in the order of their blanks, each
from the start token (sop) on, as in training:

    part A   x0 [M] x2 [M] x4 | sop  a   b  | sop  c           fill [M] at 1 with a b, at 3 with c
    positions        0 1 2 3 4 |  1   1   1  |  3   3
    block positions  0 0 0 0 0 |  1   2   3  |  1   2

A span ends with an end id, which is not fed. Later spans attend to the spans before them. If
max_new_tokens cuts a span off, its last id is returned but was never fed (as in the published
code).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.prompts import blank_prompts, check_blanks
from glm_jax.generation.sampling import Sampling

if TYPE_CHECKING:
    from glm_jax.generation.engine import Engine


def fill_rows(
    engine: "Engine",
    rows: Sequence[Sequence[int]],
    *,
    marks: Marks,
    limits: Limits,
    sampling: Sampling,
) -> list[list[list[int]]]:
    """Fills every blank of every row.

    Args:
      engine: of a model that fills blanks.
      rows: texts of ids with at least one mask each.
      marks: which ids are blanks, and which id begins a span.
      limits: which ids end a span, and the longest lengths.
      sampling: how ids are chosen.

    Returns:
      For each row one answer per mask, in the order of the masks.

    Raises:
      UserError: a row without a mask, an id outside the vocabulary, or positions outside the
        model's position tables.
    """
    check_blanks(rows, engine.config, marks, limits, sampling)
    prompts = blank_prompts(rows, marks, limits, sampling)
    return engine.answers(engine.run(engine.start(prompts)), prompts)
