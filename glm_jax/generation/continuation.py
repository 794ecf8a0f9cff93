"""Continuing texts with a causal model, with a cache of keys and values.

All of a prompt but its last token runs first, in pieces of `CHUNK` places; then the last token is
fed like every token after it (`decoding`), each choosing the next:

    prompt  x0 x1 x2 x3        run x0 x1 x2, feed x3 -> a, feed a -> b, ..
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.cache import LayerCache, bucket, empty_cache, with_length
from glm_jax.generation.decoding import (
    Rows,
    begin,
    check_new_tokens,
    check_row,
    fetch,
    ids_seen,
    run,
    stack,
)
from glm_jax.generation.given import check_special_ids
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.params import Params, bind
from glm_jax.sharding.mesh import with_mesh_of_params

# Places of a prompt that run at once: memory stays bounded and compiled shapes few.
CHUNK = 512

OnToken = Callable[[int, int], None]


def generate_rows(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    end_ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    tiles: Callable[[], Tiles | None] = no_tiles,
    on_token: OnToken | None = None,
) -> list[list[int]]:
    """Continues every row.

    Args:
      config, params: a causal model, its layers listed.
      rows: B prompts of ids, one id at least.
      end_ids: ids that end an answer; not part of it.
      max_new_tokens: longest answer.
      sampling: how ids are chosen.
      tiles: gives those of the same parameters (`make_tiles`), for speed on CPU; called once it is
        known that the input is good.
      on_token: called with the row and the id as soon as an id is there, step by step, the rows of
        a step in their order.

    Returns:
      The new ids of each row.

    Raises:
      UserError: a model that is not causal, no prompt, an empty one, one with an id outside the
        vocabulary, or one that is too long together with its answer.
    """
    check_prompts(rows, config, end_ids, max_new_tokens, sampling.min_new_tokens)
    longest = max(map(len, rows))
    size = bucket(longest + max_new_tokens)
    tokens, length = stack(rows, size)
    batch_size = len(tokens)
    state = _begin(
        params,
        tokens,
        length,
        ids_seen(rows, batch_size, config) if sampling.repetition_penalty != 1.0 else None,
        config=config,
        width=min(bucket(longest - 1), CHUNK),
        room=bucket(max_new_tokens),
    )
    go_on = functools.partial(
        _continue,
        params,
        tiles(),
        chooser=Chooser.create(sampling, row_keys(sampling.seed, rows, batch_size)),
        end_ids=np.array(end_ids, np.int32),
        config=config,
    )
    if on_token is None:
        state = go_on(rows=state, limit=np.int32(max_new_tokens))
        return fetch(state.answers, state.count)[: len(rows)]
    for step in range(max_new_tokens):
        state = go_on(rows=state, limit=np.int32(step + 1))
        chosen, running = np.asarray(state.token), np.asarray(state.running)
        for row in np.flatnonzero(running):
            on_token(int(row), int(chosen[row]))
        if not running.any():
            break
    return fetch(state.answers, state.count)[: len(rows)]


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "width", "room"))
def _begin(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    seen: jax.Array | None,
    *,
    config: ModelConfig,
    width: int,
    room: int,
) -> Rows:
    """Rows whose last token is still to be fed; those of length 0 only fill up the batch."""
    before = jnp.maximum(length - 1, 0)
    caches = prefill(config, params, tokens, before, width)
    last = jnp.take_along_axis(tokens, before[:, None], axis=1)[:, 0]
    return begin(caches, before, last, length > 0, room, seen)


def prefill(
    config: ModelConfig, params: Params, tokens: jax.Array, length: jax.Array, width: int
) -> list[LayerCache]:
    """Runs the beginnings of rows, `width` places at a time.

    Args:
      tokens: [B, S], S a multiple of width.
      length: [B] int32, how many of the tokens run.

    Returns:
      Caches of S places, of which `length` are filled.
    """
    model = bind(config, params)
    nothing = jnp.zeros((len(tokens), width), jnp.int32)

    def run_piece(index: jax.Array, caches: list[LayerCache]) -> list[LayerCache]:
        start = index * width
        place = start + jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), nothing.shape)
        inside = place < length[:, None]
        _, caches = model.extend(
            jax.lax.dynamic_slice_in_dim(tokens, start, width, axis=1),
            jnp.where(inside, place, 0),
            nothing,
            nothing,
            jnp.where(inside, place + 1, 0),
            with_length(caches, jnp.full_like(length, start)),
        )
        return caches

    pieces = (jnp.max(length) + width - 1) // width
    caches = empty_cache(config, *tokens.shape)
    return with_length(jax.lax.fori_loop(0, pieces, run_piece, caches), length)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config", donate_argnames="rows")
def _continue(
    params: Params,
    tiles: Tiles | None,
    rows: Rows,
    chooser: Chooser,
    end_ids: jax.Array,
    limit: jax.Array,
    *,
    config: ModelConfig,
) -> Rows:
    def places(rows: Rows) -> tuple[jax.Array, jax.Array]:
        return rows.length, jnp.zeros_like(rows.length)

    model = bind_tiles(config, params, tiles, len(rows.token))
    return run(model, rows, places, chooser, end_ids, limit)


def check_prompts(
    rows: Sequence[Sequence[int]],
    config: ModelConfig,
    end_ids: Sequence[int],
    max_new_tokens: int,
    min_new_tokens: int,
) -> None:
    """Raises UserError; see `generate_rows`."""
    if not config.continues_texts:
        raise UserError(
            "this model fills blanks and does not continue texts (it has block positions, as GLM); "
            "put a mask where text is wanted and use fill_blanks"
        )
    check_new_tokens(max_new_tokens, min_new_tokens)
    check_special_ids(config, eos_ids=end_ids)
    if not len(rows):
        raise UserError("no prompts; give a list of lists of ids, one at least")
    for index, row in enumerate(rows):
        if not len(row):
            raise UserError(f"prompt {index} is empty; it must hold one id at least")
        check_row(row, config)
        if len(row) + max_new_tokens > config.max_positions:
            raise UserError(
                f"prompt {index} of {len(row)} tokens and max_new_tokens={max_new_tokens} do not "
                f"fit the model's context of {config.max_positions} (model.max_positions)"
            )
