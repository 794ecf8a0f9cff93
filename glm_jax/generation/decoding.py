"""What every kind of generation shares: rows of a batch that grow token by token, on the device.

A step feeds each row its last token, writes keys and values behind what the row has, and chooses
the next token from the scores. A row ends with an end id, which is neither kept nor fed:

    step              0     1     2      3
    row 0, fed        sop   a     b      (ended: what it is fed goes nowhere)
           chosen     a     b     END           answer  a b
    row 1, fed        sop   c     d      e
           chosen     c     d     e      f      answer  c d e f, cut off by its length
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.checks import whole_number
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.cache import LayerCache, power_of_two, with_length
from glm_jax.generation.sampling import Chooser
from glm_jax.models.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the rows of a batch stand between two steps.

    Attributes:
      caches: one a layer.
      length: [B] int32, places of each row in the caches.
      token: [B] int32, the next to be fed.
      running: [B] bool, rows that have not ended.
      step: int32, steps done.
      answers: [B, A] int32, ids chosen; A is at least the longest answer.
      count: [B] int32, how many of them count.
      seen: [B, V] bool, ids that were there before; None where nothing asks.
    """

    caches: list[LayerCache]
    length: jax.Array
    token: jax.Array
    running: jax.Array
    step: jax.Array
    answers: jax.Array
    count: jax.Array
    seen: jax.Array | None = None


# Rows -> positions and block positions [B] of the tokens to be fed.
Places = Callable[[Rows], tuple[jax.Array, jax.Array]]


def begin(
    caches: list[LayerCache],
    length: jax.Array,
    token: jax.Array,
    running: jax.Array,
    size: int,
    seen: jax.Array | None = None,
) -> Rows:
    """Rows before their first step, with room for `size` new ids; the rest as in `Rows`."""
    answers = jnp.zeros((len(token), size), jnp.int32)
    return Rows(caches, length, token, running, jnp.int32(0), answers, jnp.zeros_like(length), seen)


def feed(
    model: Transformer,
    caches: list[LayerCache],
    length: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    block_positions: jax.Array,
) -> tuple[jax.Array, list[LayerCache]]:
    """Feeds each row one token, which sees all that lies in the row's cache and itself.

    Args:
      caches: one a layer; written behind `length`, which is not moved on.
      length: [B] int32, places of each row that count.
      tokens, positions, block_positions: [B] int32.

    Returns:
      (scores of the next id, float32 [B, V]; the caches).
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


def run(
    model: Transformer,
    rows: Rows,
    places: Places,
    chooser: Chooser,
    end_ids: jax.Array,
    limit: jax.Array,
) -> Rows:
    """Goes on until every row has ended or `limit` steps are done; for use inside jit."""

    def step(rows: Rows) -> Rows:
        scores, caches = feed(model, rows.caches, rows.length, rows.token, *places(rows))
        scores = chooser.bans.apply(scores, rows.answers, rows.step, end_ids)
        token = chooser.choose(scores, rows.step, rows.seen)
        seen = rows.seen
        if seen is not None:
            seen = seen.at[jnp.arange(len(token)), token].set(True)
        running = rows.running & ~jnp.any(token[:, None] == end_ids, axis=-1)
        return Rows(
            caches,
            # A row that has ended writes its garbage behind its length, where nothing sees it.
            rows.length + rows.running,
            token,
            running,
            rows.step + 1,
            rows.answers.at[:, rows.step].set(token),
            rows.count + running,
            seen,
        )

    def more(rows: Rows) -> jax.Array:
        return (rows.step < limit) & jnp.any(rows.running)

    return jax.lax.while_loop(more, step, rows)


def stack(rows: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths as one array, filled up with 0, and their lengths.

        [[1, 2, 3], [4]]    ->  1 2 3 0 ..   3
                                4 0 0 0 ..   1

    Returns:
      [B', size] and [B'] int32. B' is the next power of two, at least 2 on CPU and 8 elsewhere:
      shapes stay few, and a matrix times one vector is slower than times some (on CPU by half; on a
      TPU v5e by the compiler's estimate 46 ms a step of 6B parameters against 26 for eight rows).
    """
    least = 2 if jax.default_backend() == "cpu" else 8
    batch_size = max(least, power_of_two(len(rows)))
    tokens = np.zeros((batch_size, size), np.int32)
    for row, out in zip(rows, tokens, strict=False):
        out[: len(row)] = row
    return tokens, fill_up([len(row) for row in rows], batch_size)


def fill_up(values: Sequence[int], batch_size: int) -> np.ndarray:
    """int32 [batch_size], 0 behind the values."""
    return np.pad(np.array(values, np.int32), (0, batch_size - len(values)))


def fetch(answers: jax.Array, count: jax.Array) -> list[list[int]]:
    """[B, A] ids, of which [B] count, as lists."""
    ids, counts = _on_host(answers), _on_host(count)
    return [row[:n].tolist() for row, n in zip(ids, counts, strict=True)]


def _on_host(array: jax.Array) -> np.ndarray:
    """An array's values; those that lie on devices of several processes, all must ask for."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def ids_seen(rows: Sequence[Sequence[int]], batch_size: int, config: ModelConfig) -> jax.Array:
    """[batch_size, V] bool, true for the ids of each row."""
    seen = np.zeros((batch_size, config.vocab_size), np.bool_)
    for index, row in enumerate(rows):
        seen[index, list(row)] = True
    return jnp.asarray(seen)


def check_row(row: Sequence[int], config: ModelConfig) -> None:
    """Raises UserError where an id is outside the vocabulary."""
    if min(row) < 0 or max(row) >= config.vocab_size:
        odd = min(row) if min(row) < 0 else max(row)
        raise UserError(f"id {odd} is outside the vocabulary of {config.vocab_size}")


def check_new_tokens(max_new_tokens: int, min_new_tokens: int = 0) -> None:
    """Raises UserError where there is nothing to generate, or an answer cannot be long enough."""
    whole_number("max_new_tokens", max_new_tokens, least=1)
    if min_new_tokens > max_new_tokens:
        raise UserError(
            f"min_new_tokens must be at most max_new_tokens={max_new_tokens}; got {min_new_tokens}"
        )
