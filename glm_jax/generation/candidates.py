"""The most probable ways to fill all blanks of a text together, by beam search over the blanks.

part A  the [M] is [M]       blank 1: light -0.4, day -1.9    (K = 2 ways are kept)
  light:  blank 2            good -0.3, dark -1.2     together  light good -0.7   kept
  day:    blank 2            good -0.5, over -0.6               light dark -1.6   kept
                                                                day good   -2.4
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.generation import beam
from glm_jax.generation.bans import Bans
from glm_jax.generation.cache import LayerCache, bucket, power_of_two, with_length
from glm_jax.generation.decoding import check_new_tokens, fill_up, stack
from glm_jax.generation.given import check_special_ids
from glm_jax.generation.options import BeamSearch, Limits, Marks, check_beams
from glm_jax.generation.prompts import blanks_of, check_blanks, prefill_blanks
from glm_jax.generation.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params


@dataclasses.dataclass(frozen=True)
class Filling:
    """One way to fill all blanks.

    Attributes:
      answers: the ids of each blank, without the end id.
      log_probability: of these ids and the ends behind them, in nats; of an answer that the length
        cut off, without an end.
    """

    answers: list[list[int]]
    log_probability: float


def search_fillings(
    config: ModelConfig,
    params: Params,
    ids: Sequence[int],
    *,
    marks: Marks,
    limits: Limits,
    search: BeamSearch,
    tiles: Callable[[], Tiles | None] = no_tiles,
) -> list[Filling]:
    """Looks for `search.num_beams` ways to fill a text, the most probable first.

    Args:
      ids: one text with a mask at least.
      search: its length_penalty is not looked at: the sum of log-probabilities decides.
      others and errors: of `blank_filling.fill_rows`.

    Returns:
      As many as were found; ids that end in two ways count by the better one.
    """
    mask_ids, start_id = marks.mask_ids, marks.start_id
    end_ids, max_new_tokens = limits.end_ids, limits.max_new_tokens
    needed = check_blanks(config, [ids], mask_ids, max_new_tokens)
    check_special_ids(config, mask_ids=mask_ids, start_id=start_id, end_ids=end_ids)
    check_new_tokens(max_new_tokens, search.min_new_tokens)
    check_beams(search, config, end_ids)
    room = bucket(max_new_tokens)
    tokens, length = stack([ids], bucket(len(ids)))
    caches, lengths, _ = prefill_blanks(
        params, tokens[:1], length[:1], None, config=config, size=bucket(needed + room)
    )
    places = np.flatnonzero(blanks_of(tokens[:1], [ids], mask_ids)[0]).tolist()
    laid_out, kept = tiles(), [Filling([], 0.0)]
    for index, place in enumerate(places):
        rows = power_of_two(len(kept))
        found = _find(
            params,
            laid_out,
            caches,
            lengths,
            np.full(rows, place, np.int32),
            np.arange(rows) < len(kept),
            np.int32(start_id),
            np.array(end_ids, np.int32),
            np.int32(max_new_tokens),
            search.bans(),
            config=config,
            beams=search.num_beams,
            size=room,
        )
        answers, counts, scores = map(np.asarray, found)
        parents, kept = _best(kept, answers, counts, scores, search.num_beams)
        if index < len(places) - 1:
            caches, lengths = _fed(
                params, caches, lengths, parents, kept, place, start_id, max_new_tokens, config
            )
    return kept


def _best(
    before: list[Filling], answers: np.ndarray, counts: np.ndarray, scores: np.ndarray, count: int
) -> tuple[list[int], list[Filling]]:
    """The best fillings after one more blank, and which of those before each goes on from.

    Args:
      before: B of them.
      answers, counts, scores: [B', K, A], [B', K] and [B', K] of each one's own search, B' >= B.
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


def _fed(
    params: Params,
    caches: list[LayerCache],
    lengths: jax.Array,
    parents: list[int],
    kept: list[Filling],
    place: int,
    start_id: int,
    max_new_tokens: int,
    config: ModelConfig,
) -> tuple[list[LayerCache], jax.Array]:
    """The caches of the fillings kept, each with its latest answer behind those before it."""
    rows = power_of_two(len(kept))
    # As without beams: what the length cuts off was never fed.
    spans = [[start_id, *filling.answers[-1][: max_new_tokens - 1]] for filling in kept]
    width = bucket(max_new_tokens)
    inputs = np.zeros((rows, width), np.int32)
    for row, span in zip(inputs, spans, strict=False):
        row[: len(span)] = span
    return _feed(
        params,
        caches,
        lengths,
        fill_up(parents, rows),
        inputs,
        fill_up([len(span) for span in spans], rows),
        np.int32(place),
        config=config,
    )


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "beams", "size"))
def _find(
    params: Params,
    tiles: Tiles | None,
    caches: list[LayerCache],
    lengths: jax.Array,
    blank: jax.Array,
    has: jax.Array,
    start_id: jax.Array,
    end_ids: jax.Array,
    limit: jax.Array,
    bans: Bans,
    *,
    config: ModelConfig,
    beams: int,
    size: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Searches one blank of B rows: answers [B, K, size], counts and sums [B, K], best first."""

    def places(state: beam.Beams) -> tuple[jax.Array, jax.Array]:
        return blank, jnp.full_like(blank, state.step + 1)

    found = beam.search(
        bind_tiles(config, params, tiles, len(blank) * beams),
        beam.begin(caches, lengths, has, beams, size),
        jnp.full_like(blank, start_id),
        places,
        end_ids,
        limit,
        jnp.float32(0.0),
        bans,
    )
    return found.finished, found.count, found.best


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config",))
def _feed(
    params: Params,
    caches: list[LayerCache],
    lengths: jax.Array,
    parents: jax.Array,
    inputs: jax.Array,
    counts: jax.Array,
    blank: jax.Array,
    *,
    config: ModelConfig,
) -> tuple[list[LayerCache], jax.Array]:
    """Rows `parents` [B] of the caches, behind which `counts` of inputs [B, A] are fed."""
    caches = jax.tree.map(lambda part: part[parents], caches)
    lengths = lengths[parents]
    step = jnp.broadcast_to(jnp.arange(inputs.shape[1], dtype=jnp.int32), inputs.shape)
    inside = step < counts[:, None]
    _, caches = bind(config, params).extend(
        inputs,
        jnp.where(inside, blank, 0),
        jnp.where(inside, step + 1, 0),
        jnp.zeros_like(inputs),
        jnp.where(inside, lengths[:, None] + step + 1, 0),
        with_length(caches, lengths),
    )
    return with_length(caches, lengths + counts), lengths + counts
