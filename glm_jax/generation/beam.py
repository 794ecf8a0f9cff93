"""Beam search on the device: K beams a row, as K rows of a batch that are put in order each step.

One step of a row with K = 2 and one end id E; 2 K candidates, the best continuations of all beams:

    beams              candidates, best first           beams after     finished
    0  a b    -1.0     0 E   -1.1    rank 0: taken   ->  0  a b c  -1.4  a b  -1.1 / 2^penalty
    1  a d    -1.2     0 c   -1.4                        1  a d a  -1.9
                       1 a   -1.9
                       1 E   -2.0    rank 3 >= K: dropped

A finished answer is worth the sum of its log-probabilities divided by its length (without the end)
to the power `length_penalty`. A row keeps the K best of them, and is done when it has K and the
worst is at least as good as the best candidate would be, ended now. Beams that the length stops
compete with the finished ones. (The published code's search, which is transformers' of 2021.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from glm_jax.generation.bans import Bans
from glm_jax.generation.cache import LayerCache
from glm_jax.generation.decoding import feed
from glm_jax.models.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
    """B rows of K beams between two steps. A places an answer.

    Attributes:
      caches: of B * K rows, one a layer.
      length: [B] int32, places of each row in the caches.
      step: int32, steps done.
      scores: [B, K] float32, sum of the log-probabilities of a beam; -inf: no beam.
      answers: [B, K, A] int32, the ids of a beam, `step` of them.
      best: [B, K] float32, what finished answers are worth, best first; -inf: none.
      finished: [B, K, A] int32, their ids.
      count: [B, K] int32, how many of them count.
      done: [B] bool, rows that look no further.
    """

    caches: list[LayerCache]
    length: jax.Array
    step: jax.Array
    scores: jax.Array
    answers: jax.Array
    best: jax.Array
    finished: jax.Array
    count: jax.Array
    done: jax.Array


# Beams -> positions and block positions [B] of the tokens to be fed.
Places = Callable[[Beams], tuple[jax.Array, jax.Array]]


def begin(
    caches: list[LayerCache], length: jax.Array, has: jax.Array, beams: int, size: int
) -> Beams:
    """Beams before their first step; of the K of a row one counts, for they are still the same.

    Args:
      caches: of B rows; each is repeated K times.
      length: [B] int32.
      has: [B] bool, rows that look for an answer.
      beams, size: K and A.
    """
    caches = jax.tree.map(lambda part: jnp.repeat(part, beams, axis=0), caches)
    nothing = jnp.full((len(length), beams), -jnp.inf)
    ids = jnp.zeros((len(length), beams, size), jnp.int32)
    counts = jnp.zeros((len(length), beams), jnp.int32)
    scores = nothing.at[:, 0].set(0.0)
    return Beams(caches, length, jnp.int32(0), scores, ids, nothing, ids, counts, ~has)


def search(
    model: Transformer,
    state: Beams,
    first: jax.Array,
    places: Places,
    end_ids: jax.Array,
    limit: jax.Array,
    length_penalty: jax.Array,
    bans: Bans,
) -> Beams:
    """Looks for the best answers; for use inside jit.

    Args:
      state: see `begin`.
      first: [B] int32, the token that is fed before any of an answer.
      places: where the tokens fed stand.
      end_ids: [E] int32, ids that end an answer.
      limit: int32, longest answer.
      length_penalty: float32; 0 compares sums, 1 means.
      bans: ids that may not come.

    Returns:
      The state at the end; `best`, `finished` and `count` hold the answers, best first.
    """

    def step(state: Beams) -> Beams:
        rows, beams, _ = state.answers.shape
        last = jax.lax.dynamic_index_in_dim(
            state.answers, jnp.maximum(state.step - 1, 0), axis=2, keepdims=False
        )
        token = jnp.where(state.step == 0, first[:, None], last)
        spread = [jnp.repeat(values, beams) for values in (state.length, *places(state))]
        scores, caches = feed(model, state.caches, spread[0], token.reshape(-1), *spread[1:])
        scores = jax.nn.log_softmax(scores, axis=-1)
        answers = state.answers.reshape(rows * beams, -1)
        scores = bans.apply(scores, answers, state.step, end_ids).reshape(rows, beams, -1)
        state = dataclasses.replace(state, caches=caches, length=state.length + ~state.done)
        return _advance(state, state.scores[..., None] + scores, end_ids, length_penalty)

    def more(state: Beams) -> jax.Array:
        return (state.step < limit) & ~jnp.all(state.done)

    state = jax.lax.while_loop(more, step, state)
    # What the length stopped competes; rows that are done have nothing to add.
    scores = jnp.where(state.done[:, None], -jnp.inf, state.scores)
    return _finish(state, scores, state.answers, state.step, length_penalty)


def _advance(
    state: Beams, scores: jax.Array, end_ids: jax.Array, length_penalty: jax.Array
) -> Beams:
    """The state after a step whose continuations have `scores` [B, K, V]."""
    rows, beams, vocab_size = scores.shape
    # A beam has len(end_ids) ways to end, so K candidates at least go on.
    number = beams * (1 + max(1, len(end_ids)))
    ranked, chosen = jax.lax.top_k(scores.reshape(rows, -1), number)
    parent, token = chosen // vocab_size, (chosen % vocab_size).astype(jnp.int32)
    ends = jnp.any(token[..., None] == end_ids, axis=-1)

    ending = ends[:, :beams] & ~state.done[:, None]
    finished = _finish(
        state,
        jnp.where(ending, ranked[:, :beams], -jnp.inf),
        _take(state.answers, parent[:, :beams]),
        state.step,
        length_penalty,
    )
    full = jnp.all(finished.best > -jnp.inf, axis=1)
    possible = _worth(ranked[:, 0], state.step, length_penalty)
    done = state.done | (full & (finished.best[:, -1] >= possible))

    # Stable: those that go on keep their order.
    kept = jnp.argsort(ends, axis=1, stable=True)[:, :beams]
    parent, token, ranked = (jnp.take_along_axis(x, kept, 1) for x in (parent, token, ranked))
    answers = _take(state.answers, parent).at[:, :, state.step].set(token)
    rows_of = (jnp.arange(rows)[:, None] * beams + parent).reshape(-1)
    return dataclasses.replace(
        finished,
        caches=jax.tree.map(lambda part: part[rows_of], state.caches),
        step=state.step + 1,
        scores=ranked,
        answers=answers,
        done=done,
    )


def _finish(
    state: Beams, scores: jax.Array, answers: jax.Array, count: jax.Array, length_penalty: jax.Array
) -> Beams:
    """Adds K answers of `count` ids to the finished ones, and keeps the K best; -inf adds none."""
    worth = jnp.concatenate([state.best, _worth(scores, count, length_penalty)], axis=1)
    best, index = jax.lax.top_k(worth, state.best.shape[1])
    counts = jnp.concatenate([state.count, jnp.full_like(state.count, count)], axis=1)
    return dataclasses.replace(
        state,
        best=best,
        finished=_take(jnp.concatenate([state.finished, answers], axis=1), index),
        count=jnp.take_along_axis(counts, index, axis=1),
    )


def _worth(scores: jax.Array, count: jax.Array, length_penalty: jax.Array) -> jax.Array:
    """An empty answer counts as one of length 1."""
    return scores / jnp.maximum(count, 1).astype(jnp.float32) ** length_penalty


def _take(answers: jax.Array, index: jax.Array) -> jax.Array:
    """answers [B, N, A], index [B, K] -> [B, K, A]."""
    return jnp.take_along_axis(answers, index[..., None], axis=1)
