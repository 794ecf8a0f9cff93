"""Filling the blanks of texts, left to right, with a cache of keys and values (GLM, section 2.1).

Part A, blanks and all, runs once. Then each blank in turn grows a span behind it, as in training:

    part A   x0 [M] x2 [M] x4 | sop  a   b  | sop  c           fill [M] at 1 with a b, at 3 with c
    positions        0 1 2 3 4 |  1   1   1  |  3   3
    block positions  0 0 0 0 0 |  1   2   3  |  1   2

A span ends with an end id, which is not fed; later blanks see the answers before them. When the
length cuts a span off, its last id is returned but was never fed (as in the published code).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.inference.cache import LayerCache, bucket, empty_cache, with_length
from glm_jax.inference.decoding import (
    Rows,
    begin,
    check_new_tokens,
    check_row,
    fetch,
    fill_up,
    ids_seen,
    run,
    stack,
)
from glm_jax.inference.sampling import Chooser, Sampling, row_keys
from glm_jax.inference.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.params import Params, bind
from glm_jax.models.positions import table_rows


def fill_rows(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    mask_ids: Sequence[int],
    start_id: int,
    end_ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    tiles: Callable[[], Tiles | None] = no_tiles,
) -> list[list[list[int]]]:
    """Fills every blank of every row.

    Args:
      config, params: the model, its layers listed.
      rows: B texts of ids with at least one mask each.
      mask_ids: ids that are blanks.
      start_id: first input of a span.
      end_ids: ids that end a span; not part of the answer.
      max_new_tokens: longest answer.
      sampling: how ids are chosen.
      tiles: gives those of the same parameters (`make_tiles`), for speed on CPU; called once it is
        known that the input is good.

    Returns:
      For each row one answer per mask, in the order of the masks.

    Raises:
      UserError: a row without a mask, an id outside the vocabulary, or positions outside the
        tables.
    """
    for row in rows:
        _check(row, config, mask_ids, max_new_tokens)
    blanks = [[i for i, token in enumerate(row) if token in set(mask_ids)] for row in rows]
    needed = max(
        len(row) + len(found) * max_new_tokens for row, found in zip(rows, blanks, strict=True)
    )
    tokens, length = stack(rows, bucket(max(map(len, rows))))
    batch_size = len(tokens)
    seen = ids_seen(rows, batch_size, config) if sampling.repetition_penalty != 1.0 else None
    caches, length, seen = _prefill(
        params, tokens, length, seen, config=config, size=bucket(needed)
    )
    laid_out = tiles()
    keys, filled = row_keys(sampling.seed, rows, batch_size), []
    for index in range(max(map(len, blanks))):
        state = _fill_blank(
            params,
            laid_out,
            caches,
            length,
            seen,
            fill_up([found[index] if index < len(found) else 0 for found in blanks], batch_size),
            fill_up([index < len(found) for found in blanks], batch_size) > 0,
            np.int32(start_id),
            np.array(end_ids, np.int32),
            np.int32(max_new_tokens),
            Chooser.create(sampling, jax.vmap(jax.random.fold_in, (0, None))(keys, index)),
            config=config,
            size=bucket(max_new_tokens),
        )
        caches, length, seen = state.caches, state.length, state.seen
        filled.append((state.answers, state.count))
    # Nothing is fetched before the last blank is under way.
    answers = [fetch(*one) for one in filled]
    return [[answers[i][row] for i in range(len(found))] for row, found in enumerate(blanks)]


def _check(
    row: Sequence[int], config: ModelConfig, mask_ids: Sequence[int], max_new_tokens: int
) -> None:
    if not set(row) & set(mask_ids):
        raise UserError(f"no blank to fill: none of the mask ids {list(mask_ids)} is in the text")
    check_row(row, config)
    rows = table_rows(config)
    if len(row) > rows:
        raise UserError(
            f"a text of {len(row)} tokens does not fit the model's {rows} positions "
            f"(model.max_positions={config.max_positions})"
        )
    check_new_tokens(max_new_tokens)
    # The ids fed have block positions 1 (start id) to max_new_tokens.
    if config.position_encoding == "learned_block" and max_new_tokens >= rows:
        raise UserError(
            f"max_new_tokens={max_new_tokens} does not fit the model's {rows} block positions; "
            f"at most {rows - 1}"
        )


@functools.partial(jax.jit, static_argnames=("config", "size"))
def _prefill(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    seen: jax.Array | None,
    *,
    config: ModelConfig,
    size: int,
) -> tuple[list[LayerCache], jax.Array, jax.Array | None]:
    """Runs part A, [B, T] of which `length` count; every place sees all that count.

    Length and seen come back as they are, on the devices of all that follows: where an array lies
    is part of what a program is compiled for.
    """
    model = bind(config, params)
    place = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    inside = place < length[:, None]
    nothing = jnp.zeros_like(tokens)
    _, caches = model.extend(
        tokens,
        jnp.where(inside, place, 0),
        nothing,
        nothing,
        jnp.where(inside, length[:, None], 0),
        empty_cache(config, tokens.shape[0], size),
    )
    return with_length(caches, length), length, seen


@functools.partial(jax.jit, static_argnames=("config", "size"), donate_argnames=("caches", "seen"))
def _fill_blank(
    params: Params,
    tiles: Tiles | None,
    caches: list[LayerCache],
    length: jax.Array,
    seen: jax.Array | None,
    blank: jax.Array,
    has: jax.Array,
    start_id: jax.Array,
    end_ids: jax.Array,
    max_new_tokens: jax.Array,
    chooser: Chooser,
    *,
    config: ModelConfig,
    size: int,
) -> Rows:
    """Fills one blank of every row that has one, without leaving the device.

    Args:
      blank: [B] int32, its position; looked at where `has` [B] is true.
      size: places for an answer, at least max_new_tokens.
    """

    def places(rows: Rows) -> tuple[jax.Array, jax.Array]:
        return blank, jnp.full_like(blank, rows.step + 1)

    model = bind_tiles(config, params, tiles, len(blank))
    rows = begin(caches, length, jnp.full_like(blank, start_id), has, size, seen)
    return run(model, rows, places, chooser, end_ids, max_new_tokens)
