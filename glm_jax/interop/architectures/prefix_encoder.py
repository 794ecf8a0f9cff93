"""Trained prefixes (P-Tuning v2) under the names of ChatGLM's own code and of PEFT.

Both have one row for each of P places, with the keys and values of all layers:

    key, value of layer 0 | key, value of layer 1 | ..      K H numbers each, 2 L K H in all

A plain encoder is that table, `embedding.weight`. Under `prefix_projection` an MLP makes it, of a
table whose rows are as wide as the model (ChatGLM-6B) or as the result (ChatGLM2 and later).
"""

from collections.abc import Sequence

import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.interop.architectures.rows import Row, linear, same

PREFIX_ENCODER = "transformer.prefix_encoder."
PEFT_TENSOR = "prompt_embeddings"


def encoder_rows(config: ModelConfig, order: Sequence[int], key: str = PREFIX_ENCODER) -> list[Row]:
    """The key table of a model's prefix; empty without one.

    Args:
      config: of the model.
      order: [H]; our feature i of a key is feature order[i] of the checkpoint.
      key: in front of every name.
    """
    if not config.prefix_length:
        return []
    model = config.resolved()
    if model.prefix_projection is None:
        return [table_row(f"{key}embedding.weight", config, order)]
    rows, hidden = (model.prefix_length, model.prefix_embed_dim or 0), model.prefix_projection
    outputs = (model.num_layers, 2, model.num_kv_heads, model.head_dim)
    last = linear(f"{key}trans.2", ["prefix/down"], (hidden,), [outputs], bias=True)
    return [
        same(f"{key}embedding.weight", "prefix/rows/table", rows),
        *linear(f"{key}trans.0", ["prefix/up"], rows[1:], [(hidden,)], bias=True),
        # Their outputs are keys and values: [.., 2, K, H].
        *(_reordered(row, order, axis=-3) for row in last),
    ]


def table_row(key: str, config: ModelConfig, order: Sequence[int]) -> Row:
    """A plain table [P, 2 L K H] of that name; other arguments as of `encoder_rows`."""
    model = config.resolved()
    pairs = (model.num_layers, 2, model.num_kv_heads, model.head_dim)
    rows = (model.prefix_length, model.prefix_row)
    row = Row(
        key,
        rows,
        ("prefix/table",),
        lambda x: (np.moveaxis(x.reshape(-1, *pairs), 0, 2),),
        lambda x: np.moveaxis(x, 2, 0).reshape(rows),
    )
    return _reordered(row, order, axis=-4)


def _reordered(row: Row, order: Sequence[int], axis: int) -> Row:
    """The row, with the features of keys in our order.

    Args:
      row: its parameter has features last, and keys before values along `axis`.
      order: as of `encoder_rows`.
      axis: counted from the end.
    """
    if list(order) == sorted(order):
        return row
    there, back = np.array(order), np.argsort(order)

    def change(x: np.ndarray, order: np.ndarray) -> np.ndarray:
        keys, values = np.split(x, 2, axis)
        return np.concatenate([keys[..., order], values], axis)

    return Row(
        row.key,
        row.shape,
        row.paths,
        lambda x: tuple(change(part, there) for part in row.split(x)),
        lambda *parts: row.join(*(change(part, back) for part in parts)),
    )
