"""How a model knows where a token stands: learned tables of one or of two dimensions.

A token of part A has its index as position and 0 as block position; a token of a span has the
position of its mask, and its own place inside the span as block position (GLM, section 2.2):

    text  x1 x2 [M] x4 | <sop> x3a x3b
    positions        0 1 2 3 |   2   2   2
    block_positions  0 0 0 0 |   1   2   3
"""

from typing import Any

import jax
import numpy as np
from flax import nnx

from glm_jax.batch import Batch
from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.layers import fold_name, normal


class LearnedPositions(nnx.Module):
    """One table [P, D] indexed by `positions`; block positions are not looked at (GPT)."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.table = _table(config, fold_name(key, "table"))
        self.compute_dtype = config.compute_dtype

    def __call__(self, positions: jax.Array, block_positions: jax.Array) -> jax.Array:
        return self.table[...][positions].astype(self.compute_dtype)


class LearnedBlockPositions(nnx.Module):
    """Two tables [P + 1, D], for `positions` and for `block_positions`, added up (GLM)."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.table = _table(config, fold_name(key, "table"))
        self.block_table = _table(config, fold_name(key, "block_table"))
        self.compute_dtype = config.compute_dtype

    def __call__(self, positions: jax.Array, block_positions: jax.Array) -> jax.Array:
        rows = self.table[...][positions], self.block_table[...][block_positions]
        return rows[0].astype(self.compute_dtype) + rows[1].astype(self.compute_dtype)


POSITION_ENCODINGS: dict[str, Any] = {
    "learned": LearnedPositions,
    "learned_block": LearnedBlockPositions,
}


def make_positions(config: ModelConfig, *, key: jax.Array) -> nnx.Module:
    """The module that `config.position_encoding` names."""
    return POSITION_ENCODINGS[config.position_encoding](config, key=key)


def table_rows(config: ModelConfig) -> int:
    """Rows of a position table: ids run from 0 to one less.

    Published GLM checkpoints have one row more than their longest text.
    """
    return config.max_positions + (config.position_encoding == "learned_block")


def check_positions(batch: Batch, config: ModelConfig) -> None:
    """Refuses position ids outside the tables, which a lookup in JAX would silently clamp.

    To be called on the host, before the batch goes to a device.

    Raises:
      UserError: naming the field, its extreme value and the rows of the table.
    """
    fields = {"positions": batch.positions}
    if config.position_encoding == "learned_block":
        fields["block_positions"] = batch.block_positions
    rows = table_rows(config)
    for name, value in fields.items():
        ids = np.asarray(value)
        if ids.size and (ids.min() < 0 or ids.max() >= rows):
            extreme = ids.max() if ids.max() >= rows else ids.min()
            raise UserError(
                f"Batch.{name} has {extreme}; the model's position table has {rows} rows "
                f"(0..{rows - 1}, model.max_positions={config.max_positions})"
            )


def _table(config: ModelConfig, key: jax.Array) -> nnx.Param:
    shape = (table_rows(config), config.embed_dim)
    return nnx.Param(normal(key, shape, config.initializer_range, config))
