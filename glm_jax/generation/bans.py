"""Ids that may not come next: an end before its time, and what would repeat an n-gram."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from glm_jax.checks import whole_number


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bans:
    """What is banned in each row, inside a compiled program; what none asks for is left out of it.

    Attributes:
      least: [B] int32, no answer ends before it has so many ids.
      ngram: [B] int32, no n ids in a row stand twice in an answer; 0: no such rule.
      holds: whether any row has a `least`.
      most_ngram: the largest `ngram`; 0: none.
    """

    least: jax.Array
    ngram: jax.Array
    holds: bool = dataclasses.field(metadata={"static": True})
    most_ngram: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(cls, least: Sequence[int], ngram: Sequence[int], holds: bool = False) -> "Bans":
        """Takes `min_new_tokens` and `no_repeat_ngram` of each row.

        Args:
          holds: leave room for a `least` in the program, even if all are 0 here.
        """
        return cls(
            host_array(least),
            host_array(ngram),
            holds or max(least, default=0) > 0,
            max(ngram, default=0),
        )

    def apply(
        self, scores: jax.Array, answers: jax.Array, count: jax.Array, end_ids: jax.Array
    ) -> jax.Array:
        """Puts -inf where an id is banned.

        Args:
          scores: [B, V] float32, of the next id.
          answers: [B, A] int32, the ids of each answer so far.
          count: [B] int32, how many of them count.
          end_ids: [B, E] int32; -1 is none.
        """
        if self.holds:
            scores = ban_ends(scores, count < self.least, end_ids)
        if self.most_ngram:
            scores = ban_repeats(scores, answers, count, self.ngram, self.most_ngram)
        return scores


def host_array(values: ArrayLike, dtype: DTypeLike = np.int32) -> jax.Array:
    """A numpy array, which a compiled program takes as it takes one of jax.

    It lies on no device yet, so it goes to wherever the program runs, on several processes too.
    """
    array: Any = np.array(values, dtype)
    return array


def check_bans(min_new_tokens: int, no_repeat_ngram: int) -> dict[str, int]:
    """Both as ints, by name; raises UserError where one is no whole number, or negative."""
    return {
        "min_new_tokens": whole_number("min_new_tokens", min_new_tokens, least=0),
        "no_repeat_ngram": whole_number("no_repeat_ngram", no_repeat_ngram, least=0),
    }


def ban_ends(scores: jax.Array, early: jax.Array, end_ids: jax.Array) -> jax.Array:
    """-inf for `end_ids` [B, E] in those rows of [B, V] that are `early` [B]; -1 is no id."""
    row, outside = jnp.arange(len(scores))[:, None], scores.shape[-1]
    ids = jnp.where(end_ids < 0, outside, end_ids)
    is_end = jnp.zeros(scores.shape, bool).at[row, ids].set(True, mode="drop")
    return jnp.where(early[:, None] & is_end, -jnp.inf, scores)


def ban_repeats(
    scores: jax.Array, answers: jax.Array, count: jax.Array, n: jax.Array, most: int
) -> jax.Array:
    """-inf for each id that would make the last n ids of an answer stand in it for the second time.

        n = 3, answer 4 5 6 4 5      bans 6, for 4 5 6 is there
        n = 1                        bans 4, 5 and 6

    Args:
      scores, answers, count: as of `Bans.apply`.
      n: [B] int32; 0 bans nothing.
      most: the largest n.
    """
    size = answers.shape[1]
    row, n = jnp.arange(len(answers))[:, None], n[:, None]
    # An n-gram begins at each of `begin`; it counts where its last id is there already.
    begin = jnp.arange(size)
    same = (n > 0) & (begin + n - 1 < count[:, None])
    for offset in range(most - 1):
        latest = jnp.maximum(count[:, None] - (n - 1) + offset, 0)
        wanted = jnp.take_along_axis(answers, latest, axis=1)
        there = answers[:, jnp.minimum(begin + offset, size - 1)]
        same &= (there == wanted) | (offset >= n - 1)
    last = jnp.take_along_axis(answers, jnp.clip(begin + n - 1, 0, size - 1), axis=1)
    banned = jnp.zeros(scores.shape, bool).at[row, last].max(same)
    return jnp.where(banned, -jnp.inf, scores)
