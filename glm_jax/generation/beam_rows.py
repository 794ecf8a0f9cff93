"""Blanks filled, and texts continued, by beam search: what `beam` does on the device, from lists.

part A [M] .. [M] once  ->  K copies search for the first answer  ->  the best one is fed
behind part A  ->  K copies search for the second answer, and see the first  ->  ..
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation import beam
from glm_jax.generation.bans import Bans
from glm_jax.generation.cache import LayerCache, bucket, power_of_two, with_length
from glm_jax.generation.decoding import check_new_tokens, fill_up, stack
from glm_jax.generation.given import check_special_ids
from glm_jax.generation.options import BeamSearch, Limits, Marks, check_beams
from glm_jax.generation.prompts import (
    CHUNK,
    blanks_of,
    check_blanks,
    check_prompts,
    prefill_blanks,
    prefill_texts,
)
from glm_jax.generation.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params


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
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    marks: Marks,
    limits: Limits,
    search: BeamSearch,
    tiles: Callable[[], Tiles | None] = no_tiles,
) -> list[list[Answer]]:
    """Fills every blank of every row from left to right; arguments and errors of `fill_rows`.

    Raises:
      UserError: `limits.max_total_tokens` too, which beams do not keep.
    """
    mask_ids, start_id = marks.mask_ids, marks.start_id
    end_ids, max_new_tokens = limits.end_ids, limits.max_new_tokens
    if limits.max_total_tokens is not None:
        raise UserError("max_total_tokens is not for num_beams above 1")
    needed = check_blanks(config, rows, mask_ids, max_new_tokens)
    check_special_ids(config, mask_ids=mask_ids, start_id=start_id, end_ids=end_ids)
    check_new_tokens(max_new_tokens, search.min_new_tokens)
    check_beams(search, config, end_ids)
    room = bucket(max_new_tokens)
    tokens, length = stack(rows, bucket(max(map(len, rows))))
    # There are num_beams rows for each: no need to fill up the batch.
    batch_size = power_of_two(len(rows))
    tokens, length = tokens[:batch_size], length[:batch_size]
    caches, length, _ = prefill_blanks(
        params, tokens, length, None, config=config, size=bucket(needed + room)
    )
    places = [np.flatnonzero(row).tolist() for row in blanks_of(tokens, rows, mask_ids)]
    laid_out, answers = tiles(), []
    for index in range(max(map(len, places))):
        found = _search_blank(
            params,
            laid_out,
            caches,
            length,
            fill_up([row[index] if index < len(row) else 0 for row in places], batch_size),
            np.array([index < len(row) for row in places]),
            np.int32(start_id),
            np.array(end_ids, np.int32),
            np.int32(max_new_tokens),
            np.float32(search.length_penalty),
            search.bans(),
            config=config,
            beams=search.num_beams,
            size=room,
        )
        caches, length, *answer = found
        answers.append(answer)
    fetched = [[np.asarray(part) for part in answer] for answer in answers]
    return [
        [_answer(fetched[index], row) for index in range(len(blanks))]
        for row, blanks in enumerate(places[: len(rows)])
    ]


def search_texts(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    limits: Limits,
    search: BeamSearch,
    tiles: Callable[[], Tiles | None] = no_tiles,
) -> list[Answer]:
    """Continues every row with a causal model; arguments and errors of `generate_rows`."""
    end_ids, max_new_tokens = limits.end_ids, limits.max_new_tokens
    check_prompts(rows, config, end_ids, max_new_tokens, search.min_new_tokens)
    check_beams(search, config, end_ids)
    longest = max(map(len, rows))
    tokens, length = stack(rows, bucket(longest + max_new_tokens))
    batch_size = power_of_two(len(rows))
    found = _search_text(
        params,
        tiles(),
        tokens[:batch_size],
        length[:batch_size],
        np.array(end_ids, np.int32),
        np.int32(max_new_tokens),
        np.float32(search.length_penalty),
        search.bans(),
        config=config,
        beams=search.num_beams,
        width=min(bucket(longest - 1), CHUNK),
        size=bucket(max_new_tokens),
    )
    fetched = [np.asarray(part) for part in found]
    return [_answer(fetched, row) for row in range(len(rows))]


def _answer(found: Sequence[np.ndarray], row: int) -> Answer:
    ids, counts, scores = found
    return Answer(ids[row, : counts[row]].tolist(), float(scores[row]))


@with_mesh_of_params
@functools.partial(
    jax.jit, static_argnames=("config", "beams", "size"), donate_argnames=("caches",)
)
def _search_blank(
    params: Params,
    tiles: Tiles | None,
    caches: list[LayerCache],
    length: jax.Array,
    blank: jax.Array,
    has: jax.Array,
    start_id: jax.Array,
    end_ids: jax.Array,
    limit: jax.Array,
    length_penalty: jax.Array,
    bans: Bans,
    *,
    config: ModelConfig,
    beams: int,
    size: int,
) -> tuple[list[LayerCache], jax.Array, jax.Array, jax.Array, jax.Array]:
    """Searches one blank of every row that has one, and feeds what it found.

    Returns:
      The caches of B rows and their lengths with the answers behind them, the answers [B, size],
      how many ids of each count, and what they are worth.
    """

    def places(state: beam.Beams) -> tuple[jax.Array, jax.Array]:
        return blank, jnp.full_like(blank, state.step + 1)

    found = beam.search(
        bind_tiles(config, params, tiles, len(blank) * beams),
        beam.begin(caches, length, has, beams, size),
        jnp.full_like(blank, start_id),
        places,
        end_ids,
        limit,
        length_penalty,
        bans,
    )
    answer, count, score = found.finished[:, 0], found.count[:, 0], found.best[:, 0]
    # As without beams: what the length cuts off was never fed.
    fed = jnp.where(has, jnp.minimum(count, limit - 1) + 1, 0)
    start = jnp.full_like(blank, start_id)[:, None]
    inputs = jnp.concatenate([start, answer[:, :-1]], axis=1)
    step = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), inputs.shape)
    inside = step < fed[:, None]
    _, caches = bind(config, params).extend(
        inputs,
        jnp.where(inside, blank[:, None], 0),
        jnp.where(inside, step + 1, 0),
        jnp.zeros_like(inputs),
        jnp.where(inside, length[:, None] + step + 1, 0),
        with_length(caches, length),
    )
    return with_length(caches, length + fed), length + fed, answer, count, score


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "beams", "width", "size"))
def _search_text(
    params: Params,
    tiles: Tiles | None,
    tokens: jax.Array,
    length: jax.Array,
    end_ids: jax.Array,
    limit: jax.Array,
    length_penalty: jax.Array,
    bans: Bans,
    *,
    config: ModelConfig,
    beams: int,
    width: int,
    size: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """tokens [B, S], length [B] -> answers [B, size], how many ids count, what they are worth."""

    def places(state: beam.Beams) -> tuple[jax.Array, jax.Array]:
        return state.length, jnp.zeros_like(state.length)

    before = jnp.maximum(length - 1, 0)
    caches = prefill_texts(config, params, tokens, before, width)
    found = beam.search(
        bind_tiles(config, params, tiles, len(tokens) * beams),
        beam.begin(caches, before, length > 0, beams, size),
        jnp.take_along_axis(tokens, before[:, None], axis=1)[:, 0],
        places,
        end_ids,
        limit,
        length_penalty,
        bans,
    )
    return found.finished[:, 0], found.count[:, 0], found.best[:, 0]
