"""What the decoding engine steps: slots, in each of which a row grows token by token.

A step feeds each row its next token, writes keys and values behind what the row has, and chooses
the token after it from the scores. An answer ends with an end id, which is not fed. A row with
several blanks goes on to its next one at once; each row goes its own way:

    step              0     1     2     3     4
    slot 0, fed       sop   a     b     sop   c              two blanks
            chosen    a     b     END   c     END            chosen  a b END c END
    slot 1, fed       x3    d     e                          a text that ends in x3
            chosen    d     e     END                        chosen  d e END
    slot 2            free

Where a token stands follows from what the model does: a token of a blank has the position of its
mask and counts in its block position, a token of a text stands behind the one before it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generation.bans import host_array
from glm_jax.generation.cache import LayerCache, power_of_two, with_length
from glm_jax.generation.sampling import Chooser


class Decodable(Protocol):
    """What a step needs of a model; `glm_jax.models.transformer.Transformer` says it in full."""

    def extend(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        block_positions: jax.Array,
        attend_start: jax.Array,
        attend_end: jax.Array,
        caches: Sequence[LayerCache],
    ) -> tuple[jax.Array, list[LayerCache]]:
        """Runs more tokens [S, T] of rows: hidden states [S, T, D], and the new caches."""

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[.., D] -> float32 [.., V]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """What each of S rows was asked for.

    Attributes:
      start_id: [S] int32, fed first in each answer; of a text not looked at.
      end_ids: [S, E] int32, ids that end an answer; -1: none.
      max_new_tokens: [S] int32, longest answer.
      max_total_tokens: [S] int32, most ids of all answers together, end ids counted.
      chooser: how ids are chosen.
    """

    start_id: jax.Array
    end_ids: jax.Array
    max_new_tokens: jax.Array
    max_total_tokens: jax.Array
    chooser: Chooser


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """S rows between two steps; every array has S as its first dimension.

    Attributes:
      caches: one per layer.
      length: [S] int32, slots of each row in the caches.
      token: [S] int32, the next to be fed.
      blanks: [S, M] int32, positions of the blanks of a row, in their order; of a text not looked
        at.
      num_answers: [S] int32, how many answers a row is to have: its blanks, 1 for a text; 0: free.
      index: [S] int32, how many answers have ended.
      inside: [S] int32, ids chosen for the present answer.
      chosen: [S, A] int32, ids chosen for all answers, end ids included.
      count: [S] int32, how many of them count.
      seen: [S, V] bool, ids that were there before; None where nothing asks.
      rules: of each row.
      fills: whether rows fill blanks (static).
    """

    caches: list[LayerCache]
    length: jax.Array
    token: jax.Array
    blanks: jax.Array
    num_answers: jax.Array
    index: jax.Array
    inside: jax.Array
    chosen: jax.Array
    count: jax.Array
    seen: jax.Array | None
    rules: Rules
    fills: bool = dataclasses.field(metadata={"static": True})

    @property
    def running(self) -> jax.Array:
        """[S] bool, rows that have an answer to go on with."""
        return (self.index < self.num_answers) & (self.count < self.rules.max_total_tokens)

    def positions(self) -> tuple[jax.Array, jax.Array]:
        """Positions and block positions [S] of the tokens to be fed."""
        if not self.fills:
            return self.length, jnp.zeros_like(self.length)
        latest = jnp.minimum(self.index, self.blanks.shape[1] - 1)
        blank = jnp.take_along_axis(self.blanks, latest[:, None], axis=1)[:, 0]
        return jnp.where(self.running, blank, 0), self.inside + 1

    def feed(self, model: Decodable) -> tuple[jax.Array, list[LayerCache]]:
        """The scores of each row's next id, float32 [S, V], and the caches with the token fed."""
        return feed(model, self.caches, self.length, self.token, *self.positions())

    def advance(self, scores: jax.Array, caches: list[LayerCache]) -> "Slots":
        """The slots after a step, from what `feed` gave."""
        rules, runs = self.rules, self.running
        token = self._choose(scores)
        seen = self.seen
        if seen is not None:
            seen = seen.at[jnp.arange(len(token)), token].set(True)
        inside = self.inside + 1
        ended = jnp.any(token[:, None] == rules.end_ids, axis=-1) | (inside == rules.max_new_tokens)
        return dataclasses.replace(
            self,
            caches=caches,
            # A row that does not run writes its garbage behind its length, where nothing sees it.
            length=self.length + runs,
            token=jnp.where(ended, rules.start_id, token),
            index=self.index + (runs & ended),
            inside=jnp.where(runs & ~ended, inside, 0),
            chosen=self.chosen.at[jnp.arange(len(token)), self.count].set(token, mode="drop"),
            count=self.count + runs,
            seen=seen,
        )

    def _choose(self, scores: jax.Array) -> jax.Array:
        """The next id of each row, [S] int32; bans know the present answer only."""
        chooser, answers = self.rules.chooser, self.chosen
        if chooser.bans.most_ngram:
            begin = self.count - self.inside
            answers = jax.vmap(lambda ids, begin: jnp.roll(ids, -begin))(answers, begin)
        scores = chooser.bans.apply(scores, answers, self.inside, self.rules.end_ids)
        if chooser.draws and self.fills:
            keys = jax.vmap(jax.random.fold_in)(chooser.keys, self.index)
            chooser = dataclasses.replace(chooser, keys=keys)
        return chooser.choose(scores, self.inside, self.seen)


def feed(
    model: Decodable,
    caches: list[LayerCache],
    length: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    block_positions: jax.Array,
) -> tuple[jax.Array, list[LayerCache]]:
    """Feeds each row one token, which sees all that lies in the row's cache and itself.

    Args:
      caches: one per layer; written behind `length`, which is not moved on.
      length: [S] int32, slots of each row that count.
      tokens, positions, block_positions: [S] int32.

    Returns:
      (scores of the next id, float32 [S, V]; the caches).
    """
    hidden, caches = model.extend(
        tokens[:, None],
        positions[:, None],
        block_positions[:, None],
        jnp.zeros_like(tokens)[:, None],
        length[:, None] + 1,
        with_length(caches, length),
    )
    return model.logits(hidden[:, 0]), caches


def feed_span(
    model: Decodable, slots: Slots, ids: jax.Array, counts: jax.Array
) -> tuple[list[LayerCache], jax.Array]:
    """Feeds each row the beginning of a known answer to its present blank, all at once.

    Args:
      ids: [S, A] int32, the start id and what follows it.
      counts: [S] int32, how many of them are fed; 0: none.

    Returns:
      The caches, and [S] how many of their slots count.
    """
    step = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    inside = step < counts[:, None]
    _, caches = model.extend(
        ids,
        jnp.where(inside, slots.positions()[0][:, None], 0),
        jnp.where(inside, step + 1, 0),
        jnp.zeros_like(ids),
        jnp.where(inside, slots.length[:, None] + step + 1, 0),
        with_length(slots.caches, slots.length),
    )
    length = slots.length + counts
    return with_length(caches, length), length


def stack(
    rows: Sequence[Sequence[int]], size: int, least: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Rows of different lengths as one array, filled up with 0, and their lengths.

        [[1, 2, 3], [4]]    ->  1 2 3 0 ..   3
                                4 0 0 0 ..   1

    Args:
      rows: B of them.
      size: of the array's second dimension.
      least: rows at least; None: 2 on CPU and 8 elsewhere.

    Returns:
      [B', size] and [B'] int32. B' is the next power of two, at least `least`: shapes stay few, and
      a matrix times one vector is slower than times some (on CPU by half; on a TPU v5e by the
      compiler's estimate 46 ms per step of 6B parameters against 26 for eight rows).
    """
    if least is None:
        least = 2 if jax.default_backend() == "cpu" else 8
    batch_size = max(least, power_of_two(len(rows)))
    tokens = np.zeros((batch_size, size), np.int32)
    for row, out in zip(rows, tokens, strict=False):
        out[: len(row)] = row
    return host_array(tokens), fill_up([len(row) for row in rows], batch_size)


def split_answers(
    ids: Sequence[int], number: int, end_ids: Sequence[int], max_new_tokens: int
) -> list[list[int]]:
    """Cuts what a row has chosen, end ids and all, into the answers of its blanks.

        a b END c d e, at most 3 each    ->    [a b] [c d e]

    Args:
      number: of blanks; those without an answer get an empty one.
    """
    answers: list[list[int]] = [[]]
    for id_ in ids:
        if id_ in end_ids:
            answers.append([])
            continue
        answers[-1].append(id_)
        if len(answers[-1]) == max_new_tokens:
            answers.append([])
    return (answers + [[]] * number)[:number]


def fill_up(values: Sequence[int], batch_size: int) -> jax.Array:
    """int32 [batch_size], 0 behind the values."""
    return host_array([*values, *[0] * (batch_size - len(values))])


def ids_seen(rows: Sequence[Sequence[int]], batch_size: int, vocab_size: int) -> jax.Array:
    """[batch_size, vocab_size] bool, true for the ids of each row."""
    seen = np.zeros((batch_size, vocab_size), np.bool_)
    for index, row in enumerate(rows):
        seen[index, list(row)] = True
    return host_array(seen, np.bool_)
