"""The state of decoding: slots of a batch, in each of which a row is decoded token by token.

A step feeds each row its next token, appends the keys and values to the row's cache, and chooses
the token after it from the logits. An answer ends with an end id, which is not fed. A row with
several blanks then goes on to its next blank, independently of the other rows:

    step              0     1     2     3     4
    slot 0, fed       sop   a     b     sop   c              two blanks
            chosen    a     b     END   c     END            chosen  a b END c END
    slot 1, fed       x3    d     e                          a text that ends in x3
            chosen    d     e     END                        chosen  d e END
    slot 2            free

Positions follow from the kind of model: in a blank, all tokens have the position of the mask, and
block positions count from 1; in a continuation, positions count on.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from glm_jax.generation.bans import AnyArray, host_array
from glm_jax.generation.cache import LayerCache, power_of_two, with_length
from glm_jax.generation.sampling import Chooser


@runtime_checkable
class Decodable(Protocol):
    """The methods of `glm_jax.models.transformer.Transformer` that a step calls."""

    def extend(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        block_positions: jax.Array,
        attend_start: jax.Array,
        attend_end: jax.Array,
        caches: Sequence[LayerCache],
    ) -> tuple[jax.Array, list[LayerCache]]:
        """Runs T more tokens [S, T] of each row: hidden states [S, T, D], and the new caches."""

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[.., D] -> float32 [.., V]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """The options of each of S rows.

    Attributes:
      start_id: [S] int32, fed first in each answer; unused by a causal model.
      end_ids: [S, E] int32, ids that end an answer; -1: none.
      max_new_tokens: [S] int32, ids of the longest answer.
      max_total_tokens: [S] int32, most ids of all answers together, end ids counted.
      chooser: how ids are chosen.
    """

    start_id: AnyArray
    end_ids: AnyArray
    max_new_tokens: AnyArray
    max_total_tokens: AnyArray
    chooser: Chooser


class Room(NamedTuple):
    """Sizes of the arrays of `Slots`; rows of equal sizes can join one batch.

    Attributes:
      size: slots of a row in the caches.
      answers: most ids of all answers of a row.
      blanks: most answers of a row.
      ends: most end ids of a row.
    """

    size: int
    answers: int
    blanks: int = 1
    ends: int = 1


class Asked(NamedTuple):
    """What the rows of a batch of S slots are to decode; free slots have no answers.

    Attributes:
      blanks: [S, most blanks] int32, index of each blank's mask in its text.
      num_answers: [S] int32.
      seen: [S, V] bool, ids of the texts; None if nothing is penalised.
      rules: how to decode.
    """

    blanks: AnyArray
    num_answers: AnyArray
    seen: AnyArray | None
    rules: Rules


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """S rows between two steps; every array has S as its first dimension.

    Attributes:
      caches: one per layer.
      length: [S] int32, filled slots of each row in the caches.
      token: [S] int32, the token to feed next.
      blanks: [S, M] int32, positions of the blanks of a row, in their order; unused by a causal
        model.
      num_answers: [S] int32, the number of a row's blanks; 1 for a causal model; 0: a free slot.
      index: [S] int32, number of answers that have ended.
      inside: [S] int32, number of ids chosen for the present answer.
      chosen: [S, A] int32, ids chosen for all answers, end ids included.
      count: [S] int32, number of ids in `chosen`.
      seen: [S, V] bool, ids that the prompt or the answers hold; None if no row has a repetition
        penalty.
      rules: options of each row.
      fills: whether the model fills blanks (static).
      log_probs: [S, A] float32, of the ids in `chosen` under the logits that they were drawn from,
        divided by the row's temperature; None: not asked for.
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
    log_probs: jax.Array | None = None

    @property
    def running(self) -> jax.Array:
        """[S] bool, rows that have answers left to decode."""
        return (self.index < self.num_answers) & (self.count < self.rules.max_total_tokens)

    def positions(self) -> tuple[Int[Array, " S"], Int[Array, " S"]]:
        """Positions and block positions of the tokens to feed next."""
        if not self.fills:
            return self.length, jnp.zeros_like(self.length)
        latest = jnp.minimum(self.index, self.blanks.shape[1] - 1)
        blank = jnp.take_along_axis(self.blanks, latest[:, None], axis=1)[:, 0]
        return jnp.where(self.running, blank, 0), self.inside + 1

    def feed(self, model: Decodable) -> tuple[Float[Array, "S V"], list[LayerCache]]:
        """The logits of each row's next id, and the caches with the token fed."""
        return feed(model, self.caches, self.length, self.token, *self.positions())

    def advance(self, logits: Float[Array, "S V"], caches: list[LayerCache]) -> "Slots":
        """The slots after a step, from what `feed` returned."""
        rules, runs = self.rules, self.running
        token = self._choose(logits)
        seen = self.seen
        if seen is not None:
            seen = seen.at[jnp.arange(len(token)), token].set(True)
        inside = self.inside + 1
        ended = jnp.any(token[:, None] == rules.end_ids, axis=-1) | (inside == rules.max_new_tokens)
        return dataclasses.replace(
            self,
            caches=caches,
            # A row that does not run writes behind its length, where no query attends.
            length=self.length + runs,
            token=jnp.where(ended, rules.start_id, token),
            index=self.index + (runs & ended),
            inside=jnp.where(runs & ~ended, inside, 0),
            chosen=self.chosen.at[jnp.arange(len(token)), self.count].set(token, mode="drop"),
            count=self.count + runs,
            seen=seen,
            log_probs=self._scored(logits, token),
        )

    def _scored(self, logits: jax.Array, token: jax.Array) -> jax.Array | None:
        """`log_probs` with those of the ids just chosen."""
        if self.log_probs is None:
            return None
        heat = jnp.asarray(self.rules.chooser.temperature)
        log_probs = jax.nn.log_softmax(logits / jnp.where(heat == 0, 1.0, heat)[:, None], axis=-1)
        found = jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        return self.log_probs.at[jnp.arange(len(token)), self.count].set(found, mode="drop")

    def _choose(self, logits: jax.Array) -> jax.Array:
        """The next id of each row, [S] int32; bans apply within the present answer."""
        chooser, answers = self.rules.chooser, self.chosen
        if chooser.bans.most_ngram:
            begin = self.count - self.inside
            answers = jax.vmap(lambda ids, begin: jnp.roll(ids, -begin))(answers, begin)
        logits = chooser.bans.apply(logits, answers, self.inside, self.rules.end_ids)
        if chooser.draws and self.fills:
            keys = jax.vmap(jax.random.fold_in)(chooser.keys, self.index)
            chooser = dataclasses.replace(chooser, keys=keys)
        return chooser.choose(logits, self.inside, self.seen)


def feed(
    model: Decodable,
    caches: list[LayerCache],
    length: Int[Array, " S"],
    tokens: Int[Array, " S"],
    positions: Int[Array, " S"],
    block_positions: Int[Array, " S"],
) -> tuple[Float[Array, "S V"], list[LayerCache]]:
    """Feeds each row one token, which attends to the row's cache and to itself.

    Args:
      model: computes the logits.
      caches: one per layer; the slot at `length` is written, and `length` stays as it is.
      length: filled slots of each row.
      tokens, positions, block_positions: of the tokens to feed.

    Returns:
      The logits of the next ids in float32, and the caches.
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
    model: Decodable, slots: Slots, ids: Int[Array, "S A"], counts: Int[Array, " S"]
) -> tuple[list[LayerCache], Int[Array, " S"]]:
    """Feeds each row the first ids of a known answer to its present blank, in one call.

    Args:
      model: computes keys and values.
      slots: the rows.
      ids: the start id and the answer.
      counts: number of ids to feed to each row; 0: none.

    Returns:
      The caches, and the number of their filled slots in each row.
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
) -> tuple[Int[np.ndarray, "B {size}"], Int[np.ndarray, " B"]]:
    """Rows of different lengths as one array, padded with 0, and their lengths.

        [[1, 2, 3], [4]]    ->  1 2 3 0 ..   3
                                4 0 0 0 ..   1

    Args:
      rows: lists of ids.
      size: of the array's second dimension.
      least: smallest B; None: 2 on CPU and 8 elsewhere.

    Returns:
      int32. B is the next power of two of the number of rows, at least `least`: so few shapes are
      compiled. A step of one row is slower than a step of several: on CPU by half; on a TPU v5e,
      by the compiler's estimate, 46 ms with 6B parameters against 26 ms for eight rows.
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
    """Splits the ids that a row has chosen, end ids included, into the answers of its blanks.

        a b END c d e, at most 3 each    ->    [a b] [c d e]

    Args:
      ids: of all answers.
      number: of blanks; a blank that was not reached has an empty answer.
      end_ids, max_new_tokens: what ends an answer.
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


def fill_up(values: Sequence[int], batch_size: int) -> Int[np.ndarray, " {batch_size}"]:
    """The values, padded with 0; int32."""
    return host_array([*values, *[0] * (batch_size - len(values))])


def ids_seen(
    rows: Sequence[Sequence[int]], batch_size: int, vocab_size: int
) -> Bool[np.ndarray, "{batch_size} {vocab_size}"]:
    """True for the ids of each row."""
    seen = np.zeros((batch_size, vocab_size), np.bool_)
    for index, row in enumerate(rows):
        seen[index, list(row)] = True
    return host_array(seen, np.bool_)
