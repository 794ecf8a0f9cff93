"""Ids that may not come next: end ids in too short an answer, and ids that repeat an n-gram."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, DTypeLike

from glm_jax.checks import whole_number

# On the host before a compiled program takes it, on a device inside the program and behind it.
AnyArray = jax.Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bans:
    """The bans of each row in a compiled program, which has no code for bans that no row asks for.

    Attributes:
      least: [B] int32, ids that an answer must have before it may end.
      ngram: [B] int32, n of the n-grams that may not occur twice in an answer; 0: all may.
      bans_ends: whether the program has code for `least`.
      most_ngram: the largest `ngram`; 0: the program has no code for it.
    """

    least: AnyArray
    ngram: AnyArray
    bans_ends: bool = dataclasses.field(metadata={"static": True})
    most_ngram: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(cls, least: Sequence[int], ngram: Sequence[int], bans_ends: bool = False) -> "Bans":
        """Takes `min_new_tokens` and `no_repeat_ngram` of each row.

        Args:
          bans_ends: the program has code for `least` even if all are 0 here.
        """
        return cls(
            host_array(least),
            host_array(ngram),
            bans_ends or max(least, default=0) > 0,
            max(ngram, default=0),
        )

    def apply(
        self,
        logits: Float[Array, "B V"],
        answers: Int[Array, "B A"],
        count: Int[Array, " B"],
        end_ids: Int[AnyArray, "B E"],
    ) -> Float[Array, "B V"]:
        """Sets the logits (or log-probabilities) of banned ids to -inf.

        Args:
          logits: of the next id.
          answers: the ids of each answer so far, `count` of them.
          end_ids: -1: none.
        """
        if self.bans_ends:
            logits = ban_ends(logits, count < self.least, end_ids)
        if self.most_ngram:
            logits = ban_repeats(logits, answers, count, self.ngram, self.most_ngram)
        return logits


def host_array(values: ArrayLike, dtype: DTypeLike = np.int32) -> np.ndarray:
    """An array for a compiled program, on the host.

    It is on no device yet, so the program places it where it runs, with several processes too.
    """
    return np.array(values, dtype)


def check_bans(min_new_tokens: int, no_repeat_ngram: int) -> dict[str, int]:
    """Both as ints, by name; raises UserError if one is not a whole number, or negative."""
    return {
        "min_new_tokens": whole_number("min_new_tokens", min_new_tokens, least=0),
        "no_repeat_ngram": whole_number("no_repeat_ngram", no_repeat_ngram, least=0),
    }


def ban_ends(
    logits: Float[Array, "B V"], early: Bool[Array, " B"], end_ids: Int[AnyArray, "B E"]
) -> Float[Array, "B V"]:
    """Sets the logits of the end ids to -inf in the rows that are `early`; -1 is no id."""
    row, outside = jnp.arange(len(logits))[:, None], logits.shape[-1]
    ids = jnp.where(end_ids < 0, outside, end_ids)
    is_end = jnp.zeros(logits.shape, bool).at[row, ids].set(True, mode="drop")
    return jnp.where(early[:, None] & is_end, -jnp.inf, logits)


def ban_repeats(
    logits: Float[Array, "B V"],
    answers: Int[Array, "B A"],
    count: Int[Array, " B"],
    n: Int[AnyArray, " B"],
    most: int,
) -> Float[Array, "B V"]:
    """Sets the logits of ids to -inf that would complete an n-gram which the answer has already.

        n = 3, answer 4 5 6 4 5      bans 6: 4 5 6 would occur twice
        n = 1                        bans 4, 5 and 6

    Args:
      logits, answers, count: as of `Bans.apply`.
      n: 0 bans nothing.
      most: the largest n.
    """
    size = answers.shape[1]
    row, n = jnp.arange(len(answers))[:, None], n[:, None]
    # The n-grams of the answer begin at `begin`; one is complete if its last id is before `count`.
    begin = jnp.arange(size)
    same = (n > 0) & (begin + n - 1 < count[:, None])
    for offset in range(most - 1):
        latest = jnp.maximum(count[:, None] - (n - 1) + offset, 0)
        wanted = jnp.take_along_axis(answers, latest, axis=1)
        there = answers[:, jnp.minimum(begin + offset, size - 1)]
        same &= (there == wanted) | (offset >= n - 1)
    last = jnp.take_along_axis(answers, jnp.clip(begin + n - 1, 0, size - 1), axis=1)
    banned = jnp.zeros(logits.shape, bool).at[row, last].max(same)
    return jnp.where(banned, -jnp.inf, logits)
