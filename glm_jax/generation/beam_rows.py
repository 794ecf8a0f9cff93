"""Beam search for the blanks of texts, and for continuations: lists of ids in and out.

prefill part A  ->  K beams search for the first answer  ->  the best answer is fed behind part A
->  K beams, which attend to it, search for the second answer  ->  ..
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.errors import UserError
from glm_jax.generation.options import BeamSearch, Limits, Marks
from glm_jax.generation.programs import Found
from glm_jax.generation.prompts import blank_prompts, check_blanks, text_prompts
from glm_jax.sharding.mesh import on_host

if TYPE_CHECKING:
    from glm_jax.generation.engine import Engine


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best answer found.

    Attributes:
      ids: without the end id.
      score: its score by `BeamSearch.length_penalty`.
    """

    ids: list[int]
    score: float


def search_blanks(
    engine: "Engine",
    rows: Sequence[Sequence[int]],
    *,
    marks: Marks,
    limits: Limits,
    search: BeamSearch,
) -> list[list[Answer]]:
    """Fills every blank of every row from left to right; arguments and errors of `fill_rows`.

    Raises:
      UserError: also if `limits.max_total_tokens` is given, which beam search does not support.
    """
    if limits.max_total_tokens is not None:
        raise UserError("max_total_tokens is not for num_beams above 1")
    check_blanks(rows, engine.config, marks, limits, search)
    prompts = blank_prompts(rows, marks, limits, search)
    # Each row has num_beams slots, so the batch is large enough without padding rows.
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
    engine: "Engine",
    rows: Sequence[Sequence[int]],
    *,
    limits: Limits,
    search: BeamSearch,
    marks: Marks | None = None,
) -> list[Answer]:
    """Continues every row; arguments and errors of `generate_rows`."""
    prompts = text_prompts(rows, engine.config, limits, search, marks)
    slots = engine.start(prompts, least=1)
    found = engine.search(slots, search.num_beams, search.length_penalty)
    return [_best(_fetched(found), row) for row in range(len(rows))]


def _fetched(found: Found) -> tuple[np.ndarray, ...]:
    return tuple(map(on_host, found))


def _best(found: tuple[np.ndarray, ...], row: int) -> Answer:
    ids, counts, scores = found
    return Answer(ids[row, 0, : counts[row, 0]].tolist(), float(scores[row, 0]))
