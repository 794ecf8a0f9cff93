"""What the caches of a server take, and whether the device has it.

rows      slots + 2 (one read, one empty) + those kept of earlier prompts
a row     keys and values of all layers: 2 x layers x heads of keys x size x head dimension
"""

import jax.numpy as jnp
from jax.sharding import Mesh

from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.cache import cache_parts
from glm_jax.training.memory import readable

# Ids of a row where no context is given; the model may have fewer.
_CONTEXT = 4096
# Ids of answers beside the longest text, of a model whose answers take no positions.
_ANSWERS = 192


def default_context(config: ResolvedModel) -> int:
    """4,096 ids of a row, or as many as the model has positions for.

    The answers of a model with a position table (GLM) have their masks' positions, so that they
    come beside a text that has them all: of three blanks, 64 each.
    """
    answers = _ANSWERS if config.fills_blanks and config.has_position_table else 0
    return min(_CONTEXT, config.max_positions + answers)


def row_bytes(config: ResolvedModel, size: int) -> int:
    """Bytes of the caches of a row of `size` ids.

    ChatGLM2-6B, 28 layers of 2 heads of keys of 128, bfloat16: 28,672 an id, 117 MB for 4,096.
    """
    itemsize = jnp.dtype(config.compute.dtype).itemsize
    return 2 * config.num_layers * config.num_kv_heads * size * config.head_dim * itemsize


def num_rows(config: ResolvedModel, slots: int, kept: int) -> int:
    """Rows of which a running batch holds caches at most."""
    return slots + 2 + (0 if config.fills_blanks else kept)


def check_caches(
    config: ResolvedModel,
    slots: int,
    size: int,
    kept: int,
    available: int | None,
    mesh: Mesh | None = None,
) -> int:
    """Bytes of all caches on one device.

    Args:
      config: of the model.
      slots, size, kept: of `RunningBatch`.
      available: bytes that a device has left; None: unknown.
      mesh: that the model is on, if any.

    Raises:
      UserError: it has less.
    """
    rows = num_rows(config, slots, kept)
    parts = 1 if mesh is None else cache_parts(config, mesh.shape["tensor"])
    needed = rows * row_bytes(config, size) // parts
    if available is not None and needed > available:
        raise UserError(
            f"the caches of {slots} slots of {size:,} tokens take {readable(needed)} (of {rows} "
            f"rows, those that are read and kept included), and the device has "
            f"{readable(available)} left: fewer slots, a shorter context, or --quantize"
        )
    return needed
