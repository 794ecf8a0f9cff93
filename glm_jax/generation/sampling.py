"""Choosing the next id from its scores: greedy, repetition penalty, temperature, top-k, top-p."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.checks import LARGEST_SEED, check, finite_number, whole_number
from glm_jax.generation.bans import Bans, check_bans, host_array
from glm_jax.models.seeds import key_of

# Scores of some thousands divided by less would leave float32.
_LEAST_DIVISOR = 1e-6


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How ids are drawn; applied in the order penalty, temperature, top-k, top-p (transformers').

    Attributes:
      temperature: scores are divided by it, 1e-6 at least; 0 takes the best id and draws nothing.
      top_k: only the k best ids; 0: all.
      top_p: only the best ids that together reach this probability, one at least; 1: all.
      seed: of the draws, 0..2^64 - 1.
      repetition_penalty: what speaks for an id that was there before, in the prompt or the answer,
        is divided by it, 1e-6 at least (CTRL, arXiv:1909.05858, section 4.1); 1: none. Holds for
        greedy too.
      min_new_tokens: an answer does not end before it has so many ids.
      no_repeat_ngram: no n ids in a row come twice in an answer; 0: they may.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0

    def __post_init__(self):
        heat = finite_number("temperature", self.temperature, least=0)
        allowed = f"0 (no draws) or at least {_LEAST_DIVISOR:g}"
        check(heat == 0 or heat >= _LEAST_DIVISOR, "temperature", heat, allowed)
        penalty = finite_number("repetition_penalty", self.repetition_penalty, above=0)
        finite_number("repetition_penalty", penalty, least=_LEAST_DIVISOR)
        values = {
            "temperature": heat,
            "top_k": whole_number("top_k", self.top_k, least=0),
            "top_p": finite_number("top_p", self.top_p, above=0, most=1),
            "seed": whole_number("seed", self.seed, 0, LARGEST_SEED),
            "repetition_penalty": penalty,
            **check_bans(self.min_new_tokens, self.no_repeat_ngram),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chooser:
    """`Sampling` of each row inside a compiled program; what none asks for is left out of it.

    Attributes:
      keys: [B], of the draws of each row.
      temperature, top_k, top_p, repetition_penalty: [B].
      bans: ids that may not come.
      draws, narrows, penalises: whether any row has draws, a top-k or top-p, a penalty.
    """

    keys: jax.Array
    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    repetition_penalty: jax.Array
    bans: Bans
    draws: bool = dataclasses.field(metadata={"static": True})
    narrows: bool = dataclasses.field(metadata={"static": True})
    penalises: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(cls, rows: Sequence[Sampling], keys: jax.Array, **bans: bool) -> "Chooser":
        """Takes how each row's ids are chosen, the key of its draws, and options of `Bans`."""

        def column(name: str, dtype: type) -> jax.Array:
            return host_array([getattr(row, name) for row in rows], dtype)

        return cls(
            keys,
            column("temperature", np.float32),
            column("top_k", np.int32),
            column("top_p", np.float32),
            column("repetition_penalty", np.float32),
            Bans.create(
                [row.min_new_tokens for row in rows],
                [row.no_repeat_ngram for row in rows],
                **bans,
            ),
            draws=any(not row.greedy for row in rows),
            narrows=any(row.top_k > 0 or row.top_p < 1.0 for row in rows),
            penalises=any(row.repetition_penalty != 1.0 for row in rows),
        )

    def choose(self, logits: jax.Array, step: jax.Array, seen: jax.Array | None) -> jax.Array:
        """The next id of each row.

        Args:
          logits: [B, V] float32.
          step: [B] int32, how many ids each row has drawn before.
          seen: [B, V] bool, ids that were there before; looked at where there is a penalty.

        Returns:
          [B] int32; a row's choice depends on its own key and scores only.
        """
        if self.penalises and seen is not None:
            logits = penalise(logits, seen, self.repetition_penalty[:, None])
        if not self.draws:
            return greedy(logits)
        cold = self.temperature == 0
        limits = (self.top_k, self.top_p) if self.narrows else ()

        def draw(logits: jax.Array, key: jax.Array, step: jax.Array, *options: Any) -> jax.Array:
            temperature, *limits = options
            return sample(logits, jax.random.fold_in(key, step), temperature, *limits)

        heat = jnp.where(cold, 1.0, self.temperature)
        drawn = jax.vmap(draw)(logits, self.keys, step, heat, *limits)
        return jnp.where(cold, greedy(logits), drawn)


def row_keys(seeds: Sequence[int], rows: Sequence[Sequence[int]], batch_size: int) -> jax.Array:
    """A key for the draws of each row, [batch_size], from its ids and how many equals it follows.

    So a row draws the same alone and beside others, and copies of a row draw differently.

    Args:
      seeds: of each row.
      rows: their ids.
      batch_size: keys behind those of the rows belong to no row.
    """
    before: dict[bytes, int] = {}
    words = np.zeros((batch_size, 2), np.uint32)
    for index, row in enumerate(rows):
        content = np.array(row, np.int32).tobytes()
        words[index] = zlib.crc32(content), before.get(content, 0)
        before[content] = before.get(content, 0) + 1

    def key(seed_key: jax.Array, word: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(seed_key, word[0]), word[1])

    known = {seed: key_of(seed) for seed in {*seeds, 0}}
    seeds = [*seeds, *[0] * (batch_size - len(rows))]
    return jax.vmap(key)(jnp.stack([known[seed] for seed in seeds]), jnp.asarray(words))


def penalise(logits: jax.Array, seen: jax.Array, penalty: jax.Array | float) -> jax.Array:
    """Takes from the scores of ids seen before: positive ones are divided, negative multiplied.

        penalty 2, all but the last seen    4 -3 0 1  ->  2 -6 0 1

    Args:
      logits: [..., V].
      seen: [..., V] bool.
      penalty: above 1 makes repetition rarer.
    """
    worse = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, worse, logits)


def greedy(logits: jax.Array) -> jax.Array:
    """The best id, the lower of equals: [..., V] -> int32 [...]."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sample(
    logits: jax.Array,
    key: jax.Array,
    temperature: jax.Array | float,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
) -> jax.Array:
    """Draws ids by `Sampling`'s rules: [..., V] -> int32 [...].

    Where both limits are None nothing is sorted.
    """
    logits = logits / temperature
    if top_k is not None and top_p is not None:
        logits = filter_logits(logits, top_k, top_p)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def filter_logits(logits: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
    """Scores with -inf where top-k or top-p rule an id out; ids equal to the last one stay.

        probabilities .5 .2 .2 .1, top_p .6 -> .5 .2 .2 0      top_k 1 -> .5 0 0 0

    Args:
      logits: [..., V] float32.
      top_k: 0 for all.
      top_p: 1 for all; taken over the probabilities that top-k has left, made to sum to 1.
    """
    ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    last = jnp.where(top_k > 0, jnp.minimum(top_k, logits.shape[-1]), logits.shape[-1]) - 1
    ranked = jnp.where(jnp.arange(logits.shape[-1]) <= last, ranked, -jnp.inf)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # Rounding may bring `before` to 1 too early: top_p = 1 must keep every id.
    kept = (before < top_p) | (top_p >= 1.0)
    # A top_p below float32's normal numbers may count as 0, and the best id stays all the same.
    kept = kept.at[..., 0].set(True)
    lowest = jnp.min(jnp.where(kept & (ranked > -jnp.inf), ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= lowest, logits, -jnp.inf)
