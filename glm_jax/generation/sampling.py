"""Choosing the next id from logits: greedy, repetition penalty, temperature, top-k, top-p."""

import dataclasses
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from numpy.typing import DTypeLike

from glm_jax.checks import LARGEST_SEED, check, finite_number, whole_number
from glm_jax.generation.bans import AnyArray, Bans, check_bans, host_array
from glm_jax.generation.narrowing import filter_logits
from glm_jax.models.seeds import key_of

# Logits of some thousands divided by less would overflow float32.
_LEAST_DIVISOR = 1e-6


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How ids are sampled. Applied in the order penalty, temperature, top-k, top-p (transformers').

    Attributes:
      temperature: divides the logits; 1e-6 at least, or 0: greedy, nothing is sampled.
      top_k: only the k most probable ids; 0: all.
      top_p: only the most probable ids that together have this probability, one at least; 1: all.
      seed: of the random numbers, 0..2^64 - 1.
      repetition_penalty: divides positive logits of the ids that the prompt or the answer holds,
        and multiplies negative ones (CTRL, arXiv:1909.05858, section 4.1); 1e-6 at least; 1: none.
        Acts on greedy decoding too.
      min_new_tokens: ids that an answer must have before it may end.
      no_repeat_ngram: no n-gram of this n occurs twice in an answer; 0: all may.
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
        allowed = f"0 (greedy) or at least {_LEAST_DIVISOR:g}"
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
        """Whether the most probable id is taken each time."""
        return self.temperature == 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chooser:
    """`Sampling` of each row in a compiled program, without code for what no row asks for.

    Attributes:
      keys: [B], random keys of the rows.
      temperature, top_k, top_p, repetition_penalty: [B], as of `Sampling`.
      bans: ids that may not come next.
      draws, narrows, penalises: whether any row samples, has a top-k or top-p, has a penalty.
    """

    keys: jax.Array
    temperature: AnyArray
    top_k: AnyArray
    top_p: AnyArray
    repetition_penalty: AnyArray
    bans: Bans
    draws: bool = dataclasses.field(metadata={"static": True})
    narrows: bool = dataclasses.field(metadata={"static": True})
    penalises: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(
        cls, rows: Sequence[Sampling], keys: Key[Array, " B"], bans_ends: bool = False
    ) -> "Chooser":
        """Takes each row's `Sampling` and random key; `bans_ends` as of `Bans.create`."""

        def column(name: str, dtype: DTypeLike) -> np.ndarray:
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
                bans_ends,
            ),
            draws=any(not row.greedy for row in rows),
            narrows=any(row.top_k > 0 or row.top_p < 1.0 for row in rows),
            penalises=any(row.repetition_penalty != 1.0 for row in rows),
        )

    def choose(
        self,
        logits: Float[Array, "B V"],
        step: Int[Array, " B"],
        seen: Bool[Array, "B V"] | None,
    ) -> Int[Array, " B"]:
        """The next id of each row, which depends on the row's own key and logits only.

        Args:
          step: how many ids each row has drawn before.
          seen: the ids that the prompt or the answer holds; needed only with a penalty.
        """
        if self.penalises and seen is not None:
            logits = penalise(logits, seen, self.repetition_penalty[:, None])
        if not self.draws:
            return greedy(logits)
        is_greedy = self.temperature == 0
        drawn = sample(
            logits,
            jax.vmap(jax.random.fold_in)(self.keys, step),
            jnp.where(is_greedy, 1.0, self.temperature),
            *((self.top_k, self.top_p) if self.narrows else ()),
        )
        return jnp.where(is_greedy, greedy(logits), drawn)


def row_keys(
    seeds: Sequence[int], rows: Sequence[Sequence[int]], batch_size: int, copies: int = 0
) -> Key[Array, " B"]:
    """A random key per row, from its seed, its ids and the number of equal rows before it.

    So a row draws the same alone and beside others, and copies of a row draw differently.

    Args:
      seeds: of each row.
      rows: their ids.
      batch_size: B; the keys behind those of the rows belong to no row.
      copies: number of rows like each of these that were there before all of them.
    """
    before: dict[bytes, int] = {}
    words = np.zeros((batch_size, 2), np.uint32)
    for index, row in enumerate(rows):
        content = np.array(row, np.int32).tobytes()
        words[index] = zlib.crc32(content), before.get(content, copies)
        before[content] = before.get(content, copies) + 1

    def key(seed_key: jax.Array, word: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(seed_key, word[0]), word[1])

    known = {seed: key_of(seed) for seed in {*seeds, 0}}
    seeds = [*seeds, *[0] * (batch_size - len(rows))]
    return jax.vmap(key)(jnp.stack([known[seed] for seed in seeds]), jnp.asarray(words))


def penalise(
    logits: Float[Array, "*rows V"],
    seen: Bool[Array, "*rows V"],
    penalty: Float[AnyArray, "..."] | float,
) -> Float[Array, "*rows V"]:
    """Lowers the logits of ids seen before: positive ones are divided, negative ones multiplied.

        penalty 2, all but the last seen    4 -3 0 1  ->  2 -6 0 1

    Args:
      penalty: above 1 makes repetition rarer; of a shape that broadcasts with `logits`.
    """
    worse = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, worse, logits)


def greedy(logits: Float[Array, "*rows V"]) -> Int[Array, "*rows"]:
    """The most probable id, the lowest of equals; int32."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sample(
    logits: Float[Array, "B V"],
    keys: Key[Array, " B"],
    temperature: Float[AnyArray, " B"],
    top_k: Int[AnyArray, " B"] | None = None,
    top_p: Float[AnyArray, " B"] | None = None,
) -> Int[Array, " B"]:
    """Draws the id of each row as `Sampling` says; int32. Both limits None: all ids may come."""
    logits = logits / temperature[:, None]
    if top_k is not None and top_p is not None:
        logits = filter_logits(logits, top_k, top_p)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
