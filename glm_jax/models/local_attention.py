"""An initialisation from which small models learn in minutes: heads that attend to neighbours.

With random weights a model attends to all slots alike, and a model with learned positions must find
out which of them are neighbours. Until it has, it fills a blank without regard to the words beside
it: a GLM of a million parameters on the bundled text spends its first million tokens on that. Here
the first layer begins with heads that look one, two, ... tokens to the left or right:

    head    0   1   2   3   4        the [MASK] dog     query: [MASK] or the start of its span
    offset -1  +1  -2  +2  -3         -1          +1

The position table begins as sinusoids (arXiv:1706.03762, section 3.5, with other frequencies).
Shifting sinusoids by an offset rotates their pairs: table[p] @ rotation(offset) =
table[p + offset]. A head's keys take some of these pairs as they are, and its queries the same ones
rotated. The head's score of a key is then the mean of cos(w * (distance - offset)) over its
frequencies w. If these are evenly spaced up to pi, the mean is 1 at the offset and 0 at every other
distance:

    distance - offset     -3  -2  -1   0   1   2   3      sinusoids down to 1 / 10,000 would give
    score / _PEAK          0   0   0   1   0   0   0      .9  .95  1  1  1 .95 .9, no neighbour

All of these weights are trained like the others. A learning rate that moves weights by their own
size within a few steps destroys the initialisation: 1.5e-3 keeps it, 4e-3 does not
(docs/decisions/021-small-runs-that-learn.md).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ResolvedModel
from glm_jax.models.trees import Params

# Initial score of a head at its offset. Among 64 keys one with 12 more than the others gets nearly
# all the weight, even with what the tokens themselves add to the scores.
_PEAK = 12.0
# Size of the sinusoids in standard deviations of the random weights.
_AMPLITUDE = 2.0


def with_local_attention(params: Params, config: ResolvedModel) -> Params:
    """Sets the position table and the first layer's queries and keys to attend to neighbours.

    Args:
      params: random parameters of a model with a position table, layers stacked; its width must
        be even.
      config: of the model.

    Returns:
      A new tree; the other parameters are those of `params`.
    """
    table = params["positions"]["table"]
    frequencies = _frequencies(config)
    sinusoids = _sinusoids(table.shape[0], frequencies) * _AMPLITUDE * config.initializer_range
    positions = {**params["positions"], "table": jnp.asarray(sinusoids, table.dtype)}
    layers = params["layers"]
    attention = layers["attention"]
    first = _local(jax.tree.map(lambda leaf: leaf[0], attention), config, frequencies)
    attention = jax.tree.map(lambda leaf, new: leaf.at[0].set(new), attention, first)
    layers = {**layers, "attention": attention}
    return {**params, "positions": positions, "layers": layers}


def offsets(num_heads: int) -> list[int]:
    """The offset in positions at which each head looks: -1, 1, -2, 2, -3, ..."""
    return [(-1 if head % 2 == 0 else 1) * (head // 2 + 1) for head in range(num_heads)]


def rotation(frequencies: np.ndarray, offset: int) -> np.ndarray:
    """The matrix [D, D] that turns the row of sinusoids at p into the row at p + offset.

    Args:
      frequencies: [D / 2], radians per position.
      offset: in positions.
    """
    cos, sin = np.diag(np.cos(frequencies * offset)), np.diag(np.sin(frequencies * offset))
    return np.block([[cos, -sin], [sin, cos]])


def _frequencies(config: ResolvedModel) -> np.ndarray:
    """[D / 2] radians per position, evenly spaced below pi.

    A head uses one in `step` of them (`_pairs`), starting at a quarter of their spacing. A head of
    H features then mistakes no distance below 4 H for its offset. (At H - 1 and 3 H + 1 from the
    offset the score is 2 / pi of its maximum, and the weight e^-4 of its maximum.)
    """
    pairs, step = config.embed_dim // 2, _step(config)
    return (np.arange(pairs) + step / 4 % 1) * np.pi / pairs


def _pairs(config: ResolvedModel) -> np.ndarray:
    """[H / 2], indices of the pairs of sinusoids, of D / 2, that the heads use."""
    step = _step(config)
    return np.arange(step // 4, config.embed_dim // 2, step)


def _step(config: ResolvedModel) -> int:
    return max(1, config.embed_dim // config.head_dim)


def _sinusoids(rows: int, frequencies: np.ndarray) -> np.ndarray:
    """[rows, D], variance 1: the sines of all frequencies, then their cosines."""
    angles = np.arange(rows)[:, None] * frequencies
    return math.sqrt(2) * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _local(attention: Params, config: ResolvedModel, frequencies: np.ndarray) -> Params:
    """The attention parameters of one layer, with queries that look at `offsets`."""
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


def _key_kernel(config: ResolvedModel) -> np.ndarray:
    """[D, H], selects the pairs of `_pairs`, scaled for a score of `_PEAK` where all of them agree.

    After its norm an input has D features of variance 1, of which positions make up `share`. A pair
    therefore adds twice that share to a score; scores are divided by sqrt(H).
    """
    head_dim, pairs = config.head_dim, config.embed_dim // 2
    chosen = _pairs(config)[: head_dim // 2]
    share = _AMPLITUDE**2 / (_AMPLITUDE**2 + 2)  # the rest: token and block position embeddings
    kernel = np.zeros((config.embed_dim, head_dim))
    columns = np.arange(len(chosen))
    kernel[chosen, columns] = kernel[pairs + chosen, len(chosen) + columns] = 1.0
    return kernel * math.sqrt(_PEAK * math.sqrt(head_dim) / (2 * share * len(chosen)))
