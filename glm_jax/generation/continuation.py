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

from glm_jax.config.model import ModelConfig
from glm_jax.generation.cache import bucket
from glm_jax.generation.decoding import (
    Rows,
    begin,
    fetch,
    ids_seen,
    run,
    stack,
)
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import CHUNK, check_prompts, prefill_texts
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params

OnToken = Callable[[int, int], None]


def generate_rows(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    limits: Limits,
    sampling: Sampling,
    tiles: Callable[[], Tiles | None] = no_tiles,
    on_token: OnToken | None = None,
) -> list[list[int]]:
    """Continues every row.

    Args:
      config, params: a causal model, its layers listed.
      rows: B prompts of ids, one id at least.
      limits: which ids end an answer, and its longest length.
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
    end_ids, max_new_tokens = limits.end_ids, limits.max_new_tokens
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
    caches = prefill_texts(config, params, tokens, before, width)
    last = jnp.take_along_axis(tokens, before[:, None], axis=1)[:, 0]
    return begin(caches, before, last, length > 0, room, seen)


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
