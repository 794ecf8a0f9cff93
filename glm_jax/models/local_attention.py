"""A start from which small models learn in minutes: heads that look at their neighbours at once.

With drawn weights a model attends to all slots alike, and where positions are learned it must find
out which of them are neighbours. Until it has, a blank's text says nothing of what stands beside
it: a GLM of a million parameters on the bundled text spends its first million tokens so. Here the
first layer begins with heads that look one, two, ... tokens to the left or right:

    head    0   1   2   3   4        the [MASK] dog     query: [MASK] or the start of its span
    offset -1  +1  -2  +2  -3         -1          +1

The position table begins as sinusoids (arXiv:1706.03762, section 3.5, with other frequencies).
Sinusoids that are shifted by an offset are a rotation of their pairs, table[p] @ rotation(offset) =
table[p + offset]. A head's keys take some of these pairs as they are, and its queries the same ones
rotated, so that it scores a key by the mean of cos(w * (distance - offset)) over its frequencies w.
Where these are evenly spaced up to pi, that is 1 at the offset and 0 at every other distance:

    distance - offset     -3  -2  -1   0   1   2   3      sinusoids down to 1 / 10,000 would give
    score / _PEAK          0   0   0   1   0   0   0      .9  .95  1  1  1 .95 .9, no neighbour

All of it is learned further, as drawn weights are, and forgotten at a learning rate that moves
weights by their size within a few steps: 1.5e-3 keeps it, 4e-3 does not
(docs/decisions/021-small-runs-that-learn.md).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.models.params import Params, is_stacked

# A head's score at its offset, at the start: of 64 keys, one that has 12 more than the others gets
# all the weight, what tokens add to scores included.
_PEAK = 12.0
# Size of the sinusoids in standard deviations of the drawn weights.
_AMPLITUDE = 2.0


def with_local_attention(params: Params, config: ModelConfig) -> Params:
    """Parameters whose position table, and the first layer's queries and keys, begin locally.

    Args:
      params: as drawn, of a model with a position table; of even width.
      config: of the model.

    Returns:
      New parameters; all others are those of `params`.
    """
    table = params["positions"]["table"]
    frequencies = _frequencies(config)
    sinusoids = _sinusoids(table.shape[0], frequencies) * _AMPLITUDE * config.initializer_range
    positions = {**params["positions"], "table": jnp.asarray(sinusoids, table.dtype)}
    layers = params["layers"]
    if is_stacked(params):
        attention = layers["attention"]
        first = _local(jax.tree.map(lambda leaf: leaf[0], attention), config, frequencies)
        attention = jax.tree.map(lambda leaf, new: leaf.at[0].set(new), attention, first)
        layers = {**layers, "attention": attention}
    else:
        attention = _local(layers["0"]["attention"], config, frequencies)
        layers = {**layers, "0": {**layers["0"], "attention": attention}}
    return {**params, "positions": positions, "layers": layers}


def offsets(num_heads: int) -> list[int]:
    """How far each head looks: -1, 1, -2, 2, -3, ..."""
    return [(-1 if head % 2 == 0 else 1) * (head // 2 + 1) for head in range(num_heads)]


def rotation(frequencies: np.ndarray, offset: int) -> np.ndarray:
    """[D, D], what a row of sinusoids is multiplied with to be the one `offset` further.

    Args:
      frequencies: [D / 2], radians a position.
      offset: in positions.
    """
    cos, sin = np.diag(np.cos(frequencies * offset)), np.diag(np.sin(frequencies * offset))
    return np.block([[cos, -sin], [sin, cos]])


def _frequencies(config: ModelConfig) -> np.ndarray:
    """[D / 2] radians a position, evenly spaced below pi.

    One in `step` is a head's (`_pairs`), and these begin at a quarter of their spacing: a head of H
    numbers then takes no other distance for its offset before 4 H. (At H - 1 and 3 H + 1 further
    its score is 2 / pi of that at the offset; for the weight, e^-4 of it.)
    """
    pairs, step = config.embed_dim // 2, _step(config)
    return (np.arange(pairs) + step / 4 % 1) * np.pi / pairs


def _pairs(config: ModelConfig) -> np.ndarray:
    """[H / 2], which of the D / 2 pairs of sinusoids the heads look at."""
    step = _step(config)
    return np.arange(step // 4, config.embed_dim // 2, step)


def _step(config: ModelConfig) -> int:
    return max(1, config.embed_dim // (config.resolved().head_dim or 1))


def _sinusoids(rows: int, frequencies: np.ndarray) -> np.ndarray:
    """[rows, D] of variance 1: the sines of all frequencies, then their cosines."""
    angles = np.arange(rows)[:, None] * frequencies
    return math.sqrt(2) * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _local(attention: Params, config: ModelConfig, frequencies: np.ndarray) -> Params:
    """The attention of one layer, its queries looking where `offsets` says."""
    key = attention["key"]["kernel"]
    one = jnp.asarray(_key_kernel(config), key.dtype)
    query = jnp.stack(
        [
            jnp.asarray(rotation(frequencies, offset), key.dtype) @ one
            for offset in offsets(config.num_heads)
        ],
        axis=1,
    )
    return {
        **attention,
        "query": {**attention["query"], "kernel": query},
        "key": {**attention["key"], "kernel": jnp.broadcast_to(one[:, None], key.shape)},
    }


def _key_kernel(config: ModelConfig) -> np.ndarray:
    """[D, H], which takes the pairs of `_pairs`, for a score of `_PEAK` where all of them agree.

    An input has D numbers of variance 1 behind its norm, of which positions are a share, so a pair
    adds twice that share to a score; scores are divided by sqrt(H).
    """
    head_dim, pairs = config.resolved().head_dim or 0, config.embed_dim // 2
    chosen = _pairs(config)[: head_dim // 2]
    share = _AMPLITUDE**2 / (_AMPLITUDE**2 + 2)  # beside a token's and a block position's
    kernel = np.zeros((config.embed_dim, head_dim))
    columns = np.arange(len(chosen))
    kernel[chosen, columns] = kernel[pairs + chosen, len(chosen) + columns] = 1.0
    return kernel * math.sqrt(_PEAK * math.sqrt(head_dim) / (2 * share * len(chosen)))
