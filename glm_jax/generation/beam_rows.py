"""Blanks filled, and texts continued, by beam search: what `beam` does on the device, from lists.

part A [M] .. [M] once  ->  K copies search for the first answer  ->  the best one is fed
behind part A  ->  K copies search for the second answer, and see the first  ->  ..
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from glm_jax.errors import UserError
from glm_jax.generation.engine import Engine, Found
from glm_jax.generation.options import BeamSearch, Limits, Marks
from glm_jax.generation.prompts import Prompt, blank_prompts, check_blanks, check_prompts


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best answer found.

    Attributes:
      ids: without the end id.
      score: what it is worth (`BeamSearch.length_penalty`).
    """

    ids: list[int]
    score: float


def search_blanks(
    engine: Engine,
    rows: Sequence[Sequence[int]],
    *,
    marks: Marks,
    limits: Limits,
    search: BeamSearch,
) -> list[list[Answer]]:
    """Fills every blank of every row from left to right; arguments and errors of `fill_rows`.

    Raises:
      UserError: `limits.max_total_tokens` too, which beams do not keep.
    """
    if limits.max_total_tokens is not None:
        raise UserError("max_total_tokens is not for num_beams above 1")
    check_blanks(rows, engine.config, marks, limits, search)
    prompts = blank_prompts(rows, marks, limits, search)
    # There are num_beams slots for each row: no need to fill up the batch.
    slots = engine.start(prompts, least=1)
    found = []
    for _ in range(max(len(prompt.blanks) for prompt in prompts)):
        found.append(engine.search(slots, search.num_beams, search.length_penalty))
        slots = engine.accept(slots, found[-1].ids[:, 0], found[-1].counts[:, 0])
    fetched = [_fetched(one) for one in found]
    return [
        [_best(fetched[index], row) for index in range(len(prompt.blanks))]
        for row, prompt in enumerate(prompts)
    ]


def search_texts(
    engine: Engine, rows: Sequence[Sequence[int]], *, limits: Limits, search: BeamSearch
) -> list[Answer]:
    """Continues every row with a causal model; arguments and errors of `generate_rows`."""
    check_prompts(rows, engine.config, limits, search)
    slots = engine.start([Prompt(row, limits, search) for row in rows], least=1)
    found = engine.search(slots, search.num_beams, search.length_penalty)
    return [_best(_fetched(found), row) for row in range(len(rows))]


def _fetched(found: Found) -> tuple[np.ndarray, ...]:
    return tuple(map(np.asarray, found))


def _best(found: tuple[np.ndarray, ...], row: int) -> Answer:
    ids, counts, worth = found
    return Answer(ids[row, 0, : counts[row, 0]].tolist(), float(worth[row, 0]))
