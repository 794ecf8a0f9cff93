"""Filling the blanks of texts, left to right, with a cache of keys and values (GLM, section 2.1).

Part A, blanks and all, runs once. Then each blank in turn grows a span behind it, as in training:

    part A   x0 [M] x2 [M] x4 | sop  a   b  | sop  c           fill [M] at 1 with a b, at 3 with c
    positions        0 1 2 3 4 |  1   1   1  |  3   3
    block positions  0 0 0 0 0 |  1   2   3  |  1   2

A span ends with an end id, which is not fed; later blanks see the answers before them. When the
length cuts a span off, its last id is returned but was never fed (as in the published code).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.inference.cache import LayerCache, bucket, empty_cache, with_length
from glm_jax.inference.sampling import Sampling, greedy, sample
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
    length = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), bucket(length.max())), np.int32)
    for row, out in zip(rows, tokens, strict=True):
        out[: len(row)] = row
    caches = _prefill(params, tokens, length, config=config, size=bucket(needed))

    key, answers = jax.random.key(sampling.seed), []
    for index in range(max(map(len, blanks))):
        has = np.array([index < len(found) for found in blanks])
        at = np.array([found[index] if index < len(found) else 0 for found in blanks], np.int32)
        caches, length, out, count = _fill_blank(
            params,
            caches,
            length,
            at,
            has,
            jax.random.fold_in(key, index),
            np.int32(start_id),
            np.array(end_ids, np.int32),
            np.int32(max_new_tokens),
            np.float32(sampling.temperature or 1.0),
            np.int32(sampling.top_k),
            np.float32(sampling.top_p),
            config=config,
            draw=not sampling.greedy,
            size=bucket(max_new_tokens),
        )
        answers.append((out, count))
    # Nothing is fetched before the last blank is under way.
    fetched = [(np.asarray(out), np.asarray(count)) for out, count in answers]
    return [
        [fetched[i][0][row, : fetched[i][1][row]].tolist() for i in range(len(found))]
        for row, found in enumerate(blanks)
    ]


def _check(
    row: Sequence[int], config: ModelConfig, mask_ids: Sequence[int], max_new_tokens: int
) -> None:
    if not set(row) & set(mask_ids):
        raise UserError(f"no blank to fill: none of the mask ids {list(mask_ids)} is in the text")
    if min(row) < 0 or max(row) >= config.vocab_size:
        odd = min(row) if min(row) < 0 else max(row)
        raise UserError(f"id {odd} is outside the vocabulary of {config.vocab_size}")
    rows = table_rows(config)
    if len(row) > rows:
        raise UserError(
            f"a text of {len(row)} tokens does not fit the model's {rows} positions "
            f"(model.max_positions={config.max_positions})"
        )
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1; got {max_new_tokens}")
    # The ids fed have block positions 1 (start id) to max_new_tokens.
    if config.position_encoding == "learned_block" and max_new_tokens >= rows:
        raise UserError(
            f"max_new_tokens={max_new_tokens} does not fit the model's {rows} block positions; "
            f"at most {rows - 1}"
        )


@functools.partial(jax.jit, static_argnames=("config", "size"))
def _prefill(
    params: Params, tokens: jax.Array, length: jax.Array, *, config: ModelConfig, size: int
) -> list[LayerCache]:
    """Runs part A, [B, T] of which `length` count; every place sees all that count."""
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
    return with_length(caches, length)


@functools.partial(jax.jit, static_argnames=("config", "draw", "size"), donate_argnames=("caches",))
def _fill_blank(
    params: Params,
    caches: list[LayerCache],
    length: jax.Array,
    blank: jax.Array,
    has: jax.Array,
    key: jax.Array,
    start_id: jax.Array,
    end_ids: jax.Array,
    max_new_tokens: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    *,
    config: ModelConfig,
    draw: bool,
    size: int,
) -> tuple[list[LayerCache], jax.Array, jax.Array, jax.Array]:
    """Fills one blank of every row that has one, without leaving the device.

    Args:
      blank: [B] int32, its position; looked at where `has` [B] is true.
      size: places for an answer, at least max_new_tokens.

    Returns:
      The caches and lengths with the span, the answers [B, size], and how many ids each has [B].
    """
    model = bind(config, params)
    nothing = jnp.zeros_like(blank)[:, None]

    def feed(state):
        caches, length, token, step, running, out, count = state
        hidden, caches = model.extend(
            token[:, None],
            blank[:, None],
            jnp.full_like(blank, step + 1)[:, None],
            nothing,
            length[:, None] + 1,
            with_length(caches, length),
        )
        logits = model.logits(hidden[:, 0])
        token = greedy(logits)
        if draw:
            token = sample(logits, jax.random.fold_in(key, step), temperature, top_k, top_p)
        # A row that has ended writes its garbage behind its length, where nothing sees it.
        length = length + running
        running = running & ~jnp.any(token[:, None] == end_ids, axis=-1)
        out = out.at[:, step].set(token)
        return caches, length, token, step + 1, running, out, count + running

    def more(state):
        _, _, _, step, running, _, _ = state
        return (step < max_new_tokens) & jnp.any(running)

    out = jnp.zeros((blank.shape[0], size), jnp.int32)
    token = jnp.full_like(blank, start_id)
    state = (caches, length, token, jnp.int32(0), has, out, jnp.zeros_like(blank))
    caches, length, _, _, _, out, count = jax.lax.while_loop(more, feed, state)
    return caches, length, out, count
