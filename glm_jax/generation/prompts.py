"""Prompts: what is wrong with them, and how they are read into caches before the first step.

blanks    part A, every token sees all of it      check_blanks, prefill_blanks
texts     each token sees those before it         check_prompts, prefill_texts
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.cache import LayerCache, empty_cache, with_length
from glm_jax.generation.decoding import check_new_tokens, check_row
from glm_jax.generation.given import check_special_ids
from glm_jax.models.params import bind
from glm_jax.models.positions import table_rows
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params

# Places of a prompt that run at once: memory stays bounded and compiled shapes few.
CHUNK = 512


def check_blanks(
    config: ModelConfig,
    rows: Sequence[Sequence[int]],
    mask_ids: Sequence[int],
    max_new_tokens: int,
) -> int:
    """Returns the places that the longest row and its answers take at most.

    Raises:
      UserError: no rows, or as `fill_rows`.
    """
    if not len(rows):
        raise UserError("no texts to fill; give one at least")
    for row in rows:
        _check(row, config, mask_ids, max_new_tokens)
    blanks = [sum(id_ in set(mask_ids) for id_ in row) for row in rows]
    return max(len(row) + n * max_new_tokens for row, n in zip(rows, blanks, strict=True))


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
    # The ids fed have block positions 1 (start id) to max_new_tokens. A model without them has seen
    # no longer answer either, and memory for the longest is taken at once.
    if max_new_tokens >= rows:
        kind = "block positions" if config.uses_block_positions else "positions"
        raise UserError(
            f"max_new_tokens={max_new_tokens} does not fit the model's {rows} {kind}; "
            f"at most {rows - 1}"
        )


def blanks_of(
    tokens: np.ndarray, rows: Sequence[Sequence[int]], mask_ids: Sequence[int]
) -> np.ndarray:
    """Which places of stacked rows [B, T] are blanks: bool; none behind a row's end."""
    lengths = [len(row) for row in rows] + [0] * (len(tokens) - len(rows))
    inside = np.arange(tokens.shape[1]) < np.array(lengths)[:, None]
    return inside & np.isin(tokens, list(mask_ids))


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "size"))
def prefill_blanks(
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


def prefill_texts(
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
