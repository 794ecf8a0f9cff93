"""The most probable ways to fill all blanks of a text together, by beam search over the blanks.

part A  the [M] is [M]       blank 1: light -0.4, day -1.9    (K = 2 fillings are kept)
  light:  blank 2            good -0.3, dark -1.2     together  light good -0.7   kept
  day:    blank 2            good -0.5, over -0.6               light dark -1.6   kept
                                                                day good   -2.4
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.generation.cache import power_of_two
from glm_jax.generation.options import BeamSearch, Limits, Marks
from glm_jax.generation.prompts import blank_prompts, check_blanks
from glm_jax.generation.slots import Room, stack
from glm_jax.sharding.mesh import on_host

if TYPE_CHECKING:
    from glm_jax.generation.engine import Engine


@dataclasses.dataclass(frozen=True)
class Filling:
    """One way to fill all blanks.

    Attributes:
      answers: the ids of each blank, without the end id.
      log_probability: of these ids and the end id behind each answer, in nats. An answer that
        max_new_tokens cuts off has no end id.
    """

    answers: list[list[int]]
    log_probability: float


def search_fillings(
    engine: "Engine",
    ids: Sequence[int],
    *,
    marks: Marks,
    limits: Limits,
    search: BeamSearch,
    room: Room | None = None,
) -> list[Filling]:
    """Searches for the `search.num_beams` most probable ways to fill a text.

    Args:
      ids: one text with at least one mask.
      search: its length_penalty is ignored; sums of log-probabilities are compared.
      engine, marks, limits: as of `blank_filling.fill_rows`; errors too.
      room: sizes of the slots, so that texts of many shapes share few compiled programs; as many
        slots are taken then as there can be fillings. None: what this text needs.

    Returns:
      The fillings found, the most probable first. Equal ids with different end ids are one filling,
      with the higher probability.
    """
    check_blanks([ids], engine.config, marks, limits, search)
    prompts = blank_prompts([ids], marks, limits, search)
    slots, kept = engine.start(prompts, room, least=1), [Filling([], 0.0)]
    parents: list[int] = []
    for index in range(len(prompts[0].blanks)):
        if index:
            latest = [filling.answers[-1] for filling in kept]
            number = power_of_two(len(kept) if room is None else search.num_beams)
            known, lengths = stack(latest, slots.chosen.shape[1], number)
            slots = engine.accept(slots, known, lengths, parents + [0] * (number - len(parents)))
            slots = engine.release(slots, range(len(kept), number))
        found = engine.search(slots, search.num_beams, 0.0)
        answers, counts, scores = map(on_host, found)
        parents, kept = _best(kept, answers, counts, scores, search.num_beams)
    return kept


def _best(
    before: list[Filling], answers: np.ndarray, counts: np.ndarray, scores: np.ndarray, count: int
) -> tuple[list[int], list[Filling]]:
    """The best fillings after one more blank, and the index in `before` that each extends.

    Args:
      before: B fillings of the blanks so far.
      answers, counts, scores: [B', K, A] ids, [B', K] lengths and [B', K] log-probabilities of the
        K answers that the search from each filling has found; B' >= B.
      count: most fillings to keep.
    """
    known = np.array([filling.log_probability for filling in before])
    totals = known[:, None] + scores[: len(before)].astype(np.float64)
    parents: list[int] = []
    kept: list[Filling] = []
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for flat in np.argsort(-totals, axis=None, kind="stable"):
        parent, beam_index = map(int, np.unravel_index(flat, totals.shape))
        total = float(totals[parent, beam_index])
        answer = answers[parent, beam_index, : counts[parent, beam_index]].tolist()
        if not np.isfinite(total) or (parent, tuple(answer)) in seen:
            continue
        seen.add((parent, tuple(answer)))
        parents.append(parent)
        kept.append(Filling([*before[parent].answers, answer], total))
        if len(kept) == count:
            break
    return parents, kept
