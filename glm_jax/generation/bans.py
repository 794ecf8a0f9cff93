"""Ids that may not come next: an end before its time, and what would repeat an n-gram."""

import dataclasses

import jax
import jax.numpy as jnp

from glm_jax.checks import whole_number


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bans:
    """What is banned, inside a compiled program; what is not asked for is left out of it.

    Attributes:
      least: no answer ends before it has so many ids.
      ngram: no n ids in a row stand twice in an answer; 0: no such rule.
      holds: whether there is a `least`.
    """

    least: jax.Array | int
    ngram: int = dataclasses.field(metadata={"static": True})
    holds: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(cls, min_new_tokens: int = 0, no_repeat_ngram: int = 0) -> "Bans":
        """Errors as of `check_bans`."""
        bans = check_bans(min_new_tokens, no_repeat_ngram)
        return cls(bans["min_new_tokens"], bans["no_repeat_ngram"], bans["min_new_tokens"] > 0)

    def apply(
        self, scores: jax.Array, answers: jax.Array, count: jax.Array, end_ids: jax.Array
    ) -> jax.Array:
        """Puts -inf where an id is banned.

        Args:
          scores: [B, V] float32, of the next id.
          answers: [B, A] int32, the ids of each answer so far.
          count: [B] int32 or one for all, how many of them count.
          end_ids: [E] int32.
        """
        count = jnp.broadcast_to(count, answers.shape[:1])
        if self.holds:
            scores = ban_ends(scores, count < self.least, end_ids)
        if self.ngram:
            scores = ban_repeats(scores, answers, count, self.ngram)
        return scores


def check_bans(min_new_tokens: int, no_repeat_ngram: int) -> dict[str, int]:
    """Both as ints, by name; raises UserError where one is no whole number, or negative."""
    return {
        "min_new_tokens": whole_number("min_new_tokens", min_new_tokens, least=0),
        "no_repeat_ngram": whole_number("no_repeat_ngram", no_repeat_ngram, least=0),
    }


def ban_ends(scores: jax.Array, early: jax.Array, end_ids: jax.Array) -> jax.Array:
    """-inf for `end_ids` [E] in those rows of [B, V] that are `early` [B]."""
    is_end = jnp.zeros(scores.shape[-1], bool).at[end_ids].set(True)
    return jnp.where(early[:, None] & is_end, -jnp.inf, scores)


def ban_repeats(scores: jax.Array, answers: jax.Array, count: jax.Array, n: int) -> jax.Array:
    """-inf for each id that would make the last n ids of an answer stand in it for the second time.

        n = 3, answer 4 5 6 4 5      bans 6, for 4 5 6 is there
        n = 1                        bans 4, 5 and 6

    Args and result: as of `Bans.apply`; n is at least 1.
    """
    size = answers.shape[1]
    if n > size:
        return scores
    row = jnp.arange(len(answers))[:, None]
    # An n-gram begins at each of `begin`; it counts where its last id is there already.
    begin = jnp.arange(size - n + 1)
    same = begin + n - 1 < count[:, None]
    for offset in range(n - 1):
        latest = count - (n - 1) + offset
        wanted = jnp.take_along_axis(answers, jnp.maximum(latest, 0)[:, None], axis=1)
        same &= answers[:, offset : offset + len(begin)] == wanted
    banned = jnp.zeros(scores.shape, bool).at[row, answers[:, n - 1 :]].max(same)
    return jnp.where(banned, -jnp.inf, scores)
