"""A start from which small models learn in minutes: heads that look at their neighbours at once.

With drawn weights a model attends to all slots alike, and where positions are learned it must find
out which of them are neighbours. Until it has, a blank's text says nothing of what stands beside
it: a GLM of a million parameters on the bundled text spends its first million tokens so. Here the
first layer begins with heads that look one, two, ... tokens to the left or right:

    head    0   1   2   3   4        the [MASK] dog     query: [MASK] or the start of its span
    offset -1  +1  -2  +2  -3         -1          +1

The position table begins as sinusoids (arXiv:1706.03762, section 3.5). Sinusoids that are shifted
by an offset are a rotation of their pairs, table[p] @ rotation(offset) = table[p + offset], so with
a key kernel W and a query kernel rotation(offset) @ W a head's score is highest where the key's
position is the query's plus the offset. All of it is learned further, as drawn weights are.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.models.params import Params, is_stacked

# A head's score at its offset, at the start. On the bundled text (1 M parameters, rows of 64 slots)
# 5 and 11 found a blank's neighbours within 500 steps; weights as drawn did not within 1,000.
_PEAK = 5.0
# Slower than this (10,000 in arXiv:1706.03762), and neighbours would look alike.
_SLOWEST = 30.0
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
    """[D / 2] radians a position, from 1 down to about 1 / `_SLOWEST`."""
    pairs = config.embed_dim // 2
    return _SLOWEST ** (-np.arange(pairs) / pairs)


def _sinusoids(rows: int, frequencies: np.ndarray) -> np.ndarray:
    """[rows, D] of variance 1: the sines of all frequencies, then their cosines."""
    angles = np.arange(rows)[:, None] * frequencies
    return math.sqrt(2) * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _local(attention: Params, config: ModelConfig, frequencies: np.ndarray) -> Params:
    """The attention of one layer, its queries looking where `offsets` says."""
    gain = _gain(config)
    key = attention["key"]["kernel"] * gain
    shared = config.num_heads // key.shape[1]
    query = jnp.stack(
        [
            jnp.asarray(rotation(frequencies, offset), key.dtype) @ key[:, head // shared]
            for head, offset in enumerate(offsets(config.num_heads))
        ],
        axis=1,
    )
    return {
        **attention,
        "query": {**attention["query"], "kernel": query},
        "key": {**attention["key"], "kernel": key},
    }


def _gain(config: ModelConfig) -> float:
    """What drawn keys are multiplied with for a score of `_PEAK` at a head's offset.

    An input has D numbers of variance 1 behind its norm, of which positions are a share; a drawn
    kernel of H columns keeps H variances of their product, and scores are divided by sqrt(H).
    """
    resolved = config.resolved()
    share = _AMPLITUDE**2 / (_AMPLITUDE**2 + 2)  # beside a token's and a block position's
    drawn = config.initializer_range**2 * math.sqrt(resolved.head_dim or 0)
    return math.sqrt(_PEAK / (drawn * config.embed_dim * share))
