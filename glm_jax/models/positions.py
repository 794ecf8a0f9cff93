"""Position encodings: learned tables of one or two kinds of position, or rotation.

A token of part A has its index as position and 0 as block position. A token of a span has the
position of its mask, and its index inside the span, from 1, as block position (GLM, section 2.2):

    text  x1 x2 [M] x4 | <sop> x3a x3b
    positions        0 1 2 3 |   2   2   2
    block_positions  0 0 0 0 |   1   2   3

ChatGLM2 and later have positions alone, and rotate queries and keys by them (arXiv:2104.09864).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.attention.tpu.tile_order import from_tiles, in_tiles, is_held_in_tiles
from glm_jax.batch import Batch
from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.errors import UserError
from glm_jax.models.seeds import fold_name, normal
from glm_jax.models.weights import look_up


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rotation:
    """The rotation of each pair of features of a head, per slot.

        angles a b, R = 4, H = 6      cos  cos a   cos a  cos b   cos b  1  1
                                      sin  -sin a  sin a  -sin b  sin b  0  0

    Attributes:
      cos: [B, T, 1, H] float32, factor of the features.
      sin: [B, T, 1, H] float32, factor of the features with the two of each pair exchanged.
    """

    cos: Float[jax.Array, "B T 1 H"]
    sin: Float[jax.Array, "B T 1 H"]


def joined(first: Rotation, second: Rotation) -> Rotation:
    """Concatenates along H: the first features are rotated by `first`, the others by `second`."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), first, second)


def make_rotation(
    angles: Float[jax.Array, "B T pairs"], magnitude: float, head_dim: int
) -> Rotation:
    """The `Rotation` by angles [B, T, R / 2]; the features of a head from R on are not rotated.

    `magnitude` is a factor on cos and sin; see `rotary_frequencies`.
    """
    cos, sin = jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude
    rest = [(0, 0)] * (angles.ndim - 1) + [(0, head_dim - 2 * angles.shape[-1])]
    cos = jnp.pad(jnp.repeat(cos, 2, axis=-1), rest, constant_values=1.0)
    sin = jnp.pad(jnp.stack([-sin, sin], axis=-1).reshape(*sin.shape[:-1], -1), rest)
    return Rotation(cos[..., None, :], sin[..., None, :])


def rotate(
    x: Float[jax.Array, "B T N H"], rotation: Rotation | None
) -> Float[jax.Array, "B T N H"]:
    """Rotates pairs of features (2j, 2j + 1) among the first R of each head; the rest pass through.

        head  a b c d e f g h,  R = 4      pairs (a b) (c d), then e f g h as they are

    Args:
      x: [B, T, N, H] queries or keys.
      rotation: None: nothing is rotated.

    Returns:
      [B, T, N, H] in the dtype of x; computed in float32.
    """
    if rotation is None:
        return x
    cos, sin = rotation.cos, rotation.sin
    if is_held_in_tiles(x):
        x, cos, sin = in_tiles(x), in_tiles(cos), in_tiles(sin)
        return from_tiles(_turn(x, cos, sin))
    return _turn(x, cos, sin)


def _turn(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    exchanged = exchange_neighbours(x).astype(jnp.float32)
    return (x.astype(jnp.float32) * cos + exchanged * sin).astype(x.dtype)


def exchange_neighbours(x: Float[jax.Array, "*shape H"]) -> Float[jax.Array, "*shape H"]:
    """[a b c d] -> [b a d c] along the last axis, of even size.

    In 16 bits this is a product with a permutation matrix, exact since each sum has one term: on a
    TPU it is faster than shifts between lanes (1 % against 5 % of a 6B model's step). In 32 bits
    a TPU would round the product, so the axis is shifted, which is as fast on CPU.
    """
    size = x.shape[-1]
    if x.dtype.itemsize == 2:
        permutation = jnp.eye(size, dtype=x.dtype)[jnp.arange(size) ^ 1]
        return x @ permutation
    even = jnp.arange(size) % 2 == 0
    return jnp.where(even, jnp.roll(x, -1, axis=-1), jnp.roll(x, 1, axis=-1))


class Positions(nnx.Module):
    """Interface of a position encoding; this base class adds nothing and rotates nothing."""

    def add(
        self,
        x: Float[jax.Array, "B T D"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
    ) -> Float[jax.Array, "B T D"]:
        """x [B, T, D] plus the embeddings of the positions [B, T]."""
        return x

    def rotation(
        self, positions: Int[Array, "B T"], block_positions: Int[Array, "B T"]
    ) -> Rotation | None:
        """The rotation of queries and keys at the positions [B, T]; None: they are not rotated."""
        return None


class LearnedPositions(Positions):
    """One table [P, D] indexed by `positions`; block positions are ignored (GPT)."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.table = _table(config, fold_name(key, "table"))

    def add(
        self,
        x: Float[jax.Array, "B T D"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
    ) -> Float[jax.Array, "B T D"]:
        return x + look_up(self.table.get_value(), positions, x.dtype)


class LearnedBlockPositions(Positions):
    """The sum of two tables [P + 1, D], of `positions` and of `block_positions` (GLM)."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.table = _table(config, fold_name(key, "table"))
        self.block_table = _table(config, fold_name(key, "block_table"))

    def add(
        self,
        x: Float[jax.Array, "B T D"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
    ) -> Float[jax.Array, "B T D"]:
        rows = look_up(self.table.get_value(), positions, x.dtype)
        return x + (rows + look_up(self.block_table.get_value(), block_positions, x.dtype))


class RotaryPositions(Positions):
    """Rotation by `positions` (ChatGLM2 and later); has no parameters."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.config = config

    def rotation(
        self, positions: Int[Array, "B T"], block_positions: Int[Array, "B T"]
    ) -> Rotation:
        return _rotation_by(positions, self.config, self.config.head_dim)


class RotaryBlockPositions(Positions):
    """Rotation of half a head by `positions`, of the other half by `block_positions` (ChatGLM-6B).

    H = 8, rotary_fraction 1      features 0 1 2 3 rotate by positions, 4 5 6 7 by block positions
    """

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.config = config

    def rotation(
        self, positions: Int[Array, "B T"], block_positions: Int[Array, "B T"]
    ) -> Rotation:
        half = self.config.head_dim // 2
        return joined(
            _rotation_by(positions, self.config, half),
            _rotation_by(block_positions, self.config, half),
        )


def _rotation_by(positions: Int[Array, "B T"], config: ModelConfig, num_features: int) -> Rotation:
    frequencies, magnitude = rotary_frequencies(config, num_features)
    angles = jnp.asarray(positions, jnp.float32)[..., None] * frequencies
    return make_rotation(angles, magnitude, num_features)


def rotary_frequencies(config: ModelConfig, num_features: int) -> tuple[np.ndarray, float]:
    """Radians per position of each pair of features, and a factor on cos and sin.

        R = 8, base 10000    1, .1, .01, .001    linear by 4    .25, .025, .0025, .00025

    Args:
      config: its `rotary_*` fields are read.
      num_features: H, or H / 2 for each half of a head; R = rotary_fraction * num_features.

    Returns:
      [R / 2] float32, rounded to `config.rotary_dtype`, and the factor, which is 1 except for
      "yarn".
    """
    size = round(num_features * config.rotary_fraction)
    factor = config.rotary_factor
    base = config.rotary_base * (factor if config.rotary_scaling == "base" else 1.0)
    frequencies = base ** (-np.arange(0, size, 2) / size)
    magnitude = 1.0
    if config.rotary_scaling == "linear":
        frequencies = frequencies / factor
    elif config.rotary_scaling == "yarn":
        slowed = _yarn_share(
            size, base, config.rotary_original_positions or config.max_positions / factor
        )
        frequencies = frequencies * (1 - slowed) + frequencies / factor * slowed
        magnitude = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return frequencies.astype(config.rotary_dtype).astype(np.float32), magnitude


def _yarn_share(size: int, base: float, original_positions: float) -> np.ndarray:
    """The share of each pair's frequency that is divided by the factor: [R / 2] from 0 to 1.

    It is 0 for pairs that turn 32 times or more within the original context, 1 for pairs that turn
    once or less, and a ramp in between (YaRN, arXiv:2309.00071, section 3.2).
    """

    def pair_that_turns(times: float) -> float:
        return size * math.log(original_positions / (times * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_that_turns(32)), 0)
    high = min(math.ceil(pair_that_turns(1)), size - 1)
    # `low` and `high` coincide in tiny models; the ramp is then a step.
    width = max(high - low, 0.001)
    return np.clip((np.arange(size // 2) - low) / width, 0.0, 1.0)


POSITION_ENCODINGS = {
    "learned": LearnedPositions,
    "learned_block": LearnedBlockPositions,
    "rotary": RotaryPositions,
    "rotary_block": RotaryBlockPositions,
}


def make_positions(config: ResolvedModel, *, key: jax.Array) -> Positions:
    """The module that `config.position_encoding` names."""
    return POSITION_ENCODINGS[config.position_encoding](config, key=key)


def check_positions(batch: Batch, config: ModelConfig) -> None:
    """Refuses positions outside the tables, which a lookup in JAX would silently clamp.

    Rotary models have no table and take any position. Call this on the host, before the batch goes
    to a device.

    Raises:
      UserError: names the field, its extreme value and the rows of the table.
    """
    if not config.has_position_table:
        return
    fields = {"positions": batch.positions}
    if config.uses_block_positions:
        fields["block_positions"] = batch.block_positions
    rows = config.table_rows
    for name, value in fields.items():
        ids = np.asarray(value)
        if ids.size and (ids.min() < 0 or ids.max() >= rows):
            extreme = ids.max() if ids.max() >= rows else ids.min()
            raise UserError(
                f"Batch.{name} has {extreme}; the model's position table has {rows} rows "
                f"(0..{rows - 1}, model.max_positions={config.max_positions})"
            )


def _table(config: ResolvedModel, key: jax.Array) -> nnx.Param:
    shape = (config.table_rows, config.embed_dim)
    return nnx.Param(normal(key, shape, config.initializer_range, config.param_dtype))
