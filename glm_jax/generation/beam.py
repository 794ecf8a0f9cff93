"""Beam search on the device: K beams per row, in K slots that are reordered each step.

One step of a row with K = 2 and one end id E; 2 K candidates, the best continuations of all beams:

    beams              candidates, best first           beams after     finished
    0  a b    -1.0     0 E   -1.1    rank 0: taken   ->  0  a b c  -1.4  a b  -1.1 / 2^penalty
    1  a d    -1.2     0 c   -1.4                        1  a d a  -1.9
                       1 a   -1.9
                       1 E   -2.0    rank 3 >= K: dropped

The score of a finished answer is the sum of its log-probabilities, that of the end id included,
divided by its length (without the end id) to the power `length_penalty`. A row keeps the K best
finished answers. It is done when it has K, and the worst of them scores at least as high as the
best candidate would if it ended now. Beams that reach the longest length compete with the finished
answers. (The search of the published code, which is that of transformers in 2021.)
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from glm_jax.generation.cache import LayerCache
from glm_jax.generation.slots import Decodable, Slots


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
    """B rows of K beams between two steps, each of at most A ids.

    Attributes:
      slots: B * K slots, the beams of a row next to each other; `chosen` holds the ids of a beam.
      scores: [B, K] float32, sum of the log-probabilities of a beam; -inf: no beam.
      best: [B, K] float32, scores of the finished answers, best first; -inf: no answer.
      finished: [B, K, A] int32, ids of the finished answers.
      count: [B, K] int32, number of ids of each finished answer.
      done: [B] bool, rows that search no further.
      length_penalty: float32; see above.
    """

    slots: Slots
    scores: jax.Array
    best: jax.Array
    finished: jax.Array
    count: jax.Array
    done: jax.Array
    length_penalty: jax.Array

    @classmethod
    def begin(cls, rows: Slots, beams: int, length_penalty: jax.Array) -> "Beams":
        """The first beams for the present answer of each row: K copies, one with a score > -inf."""
        slots = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), rows)
        zero = jnp.zeros_like(slots.count)
        slots = dataclasses.replace(slots, inside=zero, count=zero)
        size = len(rows.length)
        nothing = jnp.full((size, beams), -jnp.inf)
        ids = slots.chosen.reshape(size, beams, -1)
        counts = zero.reshape(size, beams)
        first = nothing.at[:, 0].set(0.0)
        return cls(slots, first, nothing, ids, counts, ~rows.running, length_penalty)

    @property
    def running(self) -> jax.Array:
        """[B] bool, rows that are not done."""
        return ~self.done

    @property
    def step(self) -> jax.Array:
        """[B] int32, number of ids of each beam of a row."""
        return self.slots.inside[:: self.scores.shape[1]]

    def feed(self, model: Decodable) -> tuple[Float[Array, "slots V"], list[LayerCache]]:
        """As `Slots.feed`."""
        return self.slots.feed(model)

    def advance(self, logits: Float[Array, "slots V"], caches: list[LayerCache]) -> "Beams":
        """The beams after a step, from what `feed` returned for the B * K slots."""
        slots, (rows, beams) = self.slots, self.scores.shape
        scores = jax.nn.log_softmax(logits, axis=-1)
        bans = slots.rules.chooser.bans
        scores = bans.apply(scores, slots.chosen, slots.inside, slots.rules.end_ids)
        runs = jnp.repeat(self.running, beams)
        slots = dataclasses.replace(slots, caches=caches, length=slots.length + runs)
        state = dataclasses.replace(self, slots=slots)
        state = _advance(state, self.scores[..., None] + scores.reshape(rows, beams, -1))
        # Beams of the longest length join the finished answers, except in rows that are done.
        stopped = state.running & (state.step == slots.rules.max_new_tokens[::beams])
        unfinished = jnp.where(stopped[:, None], state.scores, -jnp.inf)
        state = _finish(state, unfinished, _ids(state.slots, rows), state.step)
        return dataclasses.replace(state, done=state.done | stopped)


def _advance(state: Beams, scores: jax.Array) -> Beams:
    """The state after a step; `scores` [B, K, V] of each beam continued by each id."""
    rows, beams, vocab_size = scores.shape
    slots, step = state.slots, state.step
    end_ids = slots.rules.end_ids[::beams, None]
    # Each beam has at most E candidates that end, so at least K candidates go on.
    number = beams * (1 + max(1, end_ids.shape[-1]))
    ranked, chosen = jax.lax.top_k(scores.reshape(rows, -1), number)
    parent, token = chosen // vocab_size, (chosen % vocab_size).astype(jnp.int32)
    ends = jnp.any(token[..., None] == end_ids, axis=-1)

    answers = _ids(slots, rows)
    ending = ends[:, :beams] & ~state.done[:, None]
    finished = _finish(
        state,
        jnp.where(ending, ranked[:, :beams], -jnp.inf),
        _take(answers, parent[:, :beams]),
        step,
    )
    full = jnp.all(finished.best > -jnp.inf, axis=1)
    possible = _final_scores(ranked[:, :1], step[:, None], state.length_penalty)[:, 0]
    done = state.done | (full & (finished.best[:, -1] >= possible))

    # Stable: candidates that go on keep their order.
    kept = jnp.argsort(ends, axis=1, stable=True)[:, :beams]
    parent, token, ranked = (jnp.take_along_axis(x, kept, 1) for x in (parent, token, ranked))
    row, beam = jnp.arange(rows)[:, None], jnp.arange(beams)
    answers = _take(answers, parent).at[row, beam, step[:, None]].set(token, mode="drop")
    rows_of = (row * beams + parent).reshape(-1)
    runs = jnp.repeat(state.running, beams)
    slots = dataclasses.replace(
        slots,
        caches=jax.tree.map(lambda part: part[rows_of], slots.caches),
        token=token.reshape(-1),
        inside=slots.inside + runs,
        chosen=answers.reshape(rows * beams, -1),
    )
    return dataclasses.replace(finished, slots=slots, scores=ranked, done=done)


def _ids(slots: Slots, rows: int) -> jax.Array:
    """[B, K, A], the ids of the beams of each row."""
    return slots.chosen.reshape(rows, -1, slots.chosen.shape[-1])


def _finish(state: Beams, scores: jax.Array, answers: jax.Array, step: jax.Array) -> Beams:
    """Adds K answers of `step` ids to the finished ones, and keeps the K best of both.

    Args:
      scores: [B, K], sums of log-probabilities; -inf: no answer.
      answers: [B, K, A].
      step: [B].
    """
    new = _final_scores(scores, step[:, None], state.length_penalty)
    best, index = jax.lax.top_k(jnp.concatenate([state.best, new], axis=1), scores.shape[1])
    counts = jnp.broadcast_to(step[:, None], state.count.shape)
    return dataclasses.replace(
        state,
        best=best,
        finished=_take(jnp.concatenate([state.finished, answers], axis=1), index),
        count=jnp.take_along_axis(jnp.concatenate([state.count, counts], axis=1), index, axis=1),
    )


def _final_scores(scores: jax.Array, count: jax.Array, length_penalty: jax.Array) -> jax.Array:
    """Sums of log-probabilities / length^penalty; an empty answer has length 1 here."""
    return scores / jnp.maximum(count, 1).astype(jnp.float32) ** length_penalty


def _take(answers: jax.Array, index: jax.Array) -> jax.Array:
    """answers [B, N, A], index [B, K] -> [B, K, A]."""
    return jnp.take_along_axis(answers, index[..., None], axis=1)
