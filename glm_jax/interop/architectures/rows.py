"""Rows of a key table: the parameters that each tensor of a checkpoint holds.

transformer.encoder.layers.3.self_attention.query_key_value.weight [(N + 2 K) H, D]
    <-> layers/3/attention/{query,key,value}/kernel                 [D, N or K, H]

Published matrices are [outputs, inputs]; ours are [inputs..., outputs...].
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """How the outputs of a tensor, its first dimension, are divided among parameters.

    Attributes:
      split: [outputs, *rest] -> [*outputs, *rest] of each parameter; views.
      join: the inverse.
    """

    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    join: Callable[..., np.ndarray]


WHOLE = Outputs(lambda x: (x,), lambda x: x)


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a checkpoint.

    Attributes:
      key: the tensor's name, without prefix.
      shape: the tensor's shape in the checkpoint.
      paths: paths of the parameters it holds.
      split: tensor -> parameters, in the order of `paths`; views, also of a mapped file.
      join: the inverse of `split`.
      repeats: it holds the parameters of an earlier row; a checkpoint may lack it.
      outputs: how its outputs are divided among the parameters.
      dtype: that it must have; None: float32, float16 or bfloat16.
    """

    key: str
    shape: Shape
    paths: tuple[str, ...]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    join: Callable[..., np.ndarray]
    repeats: bool = False
    outputs: Outputs = WHOLE
    dtype: np.dtype | None = None


def same(key: str, path: str, shape: Shape, repeats: bool = False) -> Row:
    """A tensor that holds one parameter, unchanged."""
    return Row(key, shape, (path,), WHOLE.split, WHOLE.join, repeats)


def norm(key: str, path: str, width: int, bias: bool) -> list[Row]:
    """The scale of a norm, and its bias if it has one."""
    rows = [same(f"{key}.weight", f"{path}/scale", (width,))]
    return rows + [same(f"{key}.bias", f"{path}/bias", (width,))] * bias


def linear(
    key: str, paths: Sequence[str], inputs: Shape, outputs: Sequence[Shape], bias: bool
) -> list[Row]:
    """A weight, and its bias, with the rows of one or more matrices one after the other.

    Args:
      key: without `.weight` or `.bias`.
      paths: of the matrices, without `/kernel` or `/bias`.
      inputs: dimensions of the input, the same for all.
      outputs: dimensions of each matrix's output.
      bias: whether there is a bias.
    """
    sizes = [math.prod(shape) for shape in outputs]
    ends = np.cumsum(sizes)[:-1].tolist()
    divided = Outputs(
        split=lambda x: tuple(
            part.reshape(*shape, *x.shape[1:])
            for part, shape in zip(np.split(x, ends), outputs, strict=True)
        ),
        join=lambda *parts: _concatenate(
            [
                part.reshape(size, *part.shape[len(shape) :])
                for part, size, shape in zip(parts, sizes, outputs, strict=True)
            ]
        ),
    )
    return _rows(key, paths, inputs, (sum(sizes), divided), bias)


def _rows(
    key: str, paths: Sequence[str], inputs: Shape, outputs: tuple[int, Outputs], bias: bool
) -> list[Row]:
    """A weight, and its bias; outputs are their number and how they are divided."""
    size, divided = outputs
    weight = Row(
        f"{key}.weight",
        (size, math.prod(inputs)),
        tuple(f"{path}/kernel" for path in paths),
        split=lambda x: tuple(
            np.moveaxis(part, -1, 0).reshape(*inputs, *part.shape[:-1]) for part in divided.split(x)
        ),
        join=lambda *parts: divided.join(
            *(np.moveaxis(part.reshape(-1, *part.shape[len(inputs) :]), 0, -1) for part in parts)
        ),
        outputs=divided,
    )
    names = tuple(f"{path}/bias" for path in paths)
    return [
        weight,
        *[Row(f"{key}.bias", (size,), names, divided.split, divided.join)] * bias,
    ]


def fused_by_head(
    key: str, paths: Sequence[str], inputs: int, heads: Shape, order: Sequence[int]
) -> list[Row]:
    """Query, key and value of all heads in one weight and one bias, head after head.

        rows    q of head 0 | k of head 0 | v of head 0 | q of head 1 | ..      H rows each

    Args:
      key: without `.weight` or `.bias`.
      paths: of the three matrices, without `/kernel` or `/bias`.
      inputs: D.
      heads: (N, H).
      order: [H]; our feature i of a query or key is feature order[i] of the checkpoint.
    """
    num_heads, head_dim = heads
    orders = (np.array(order), np.array(order), np.arange(head_dim))

    def split(tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        by_head = tensor.reshape(num_heads, 3, head_dim, *tensor.shape[1:])
        return tuple(by_head[:, index, order] for index, order in enumerate(orders))

    def join(*parts: np.ndarray) -> np.ndarray:
        together = np.empty((num_heads, 3, *parts[0].shape[1:]), parts[0].dtype)
        for index, (part, order) in enumerate(zip(parts, orders, strict=True)):
            together[:, index, order] = part
        return together.reshape(-1, *parts[0].shape[2:])

    size = 3 * num_heads * head_dim
    return _rows(key, paths, (inputs,), (size, Outputs(split, join)), bias=True)


def layer_of_two_norms(
    key: str, path: str, qkv: Sequence[Row], width: int, heads: Shape, mlp_dim: int
) -> list[Row]:
    """A layer of GLM (2021) or ChatGLM-6B, in the order of their files; everything has a bias.

    Args:
      key, path: of the layer, each with a dot or slash behind it.
      qkv: the rows of its queries, keys and values.
      width: D.
      heads: (N, H).
      mlp_dim: F.
    """
    return [
        *norm(f"{key}input_layernorm", f"{path}attention_norm", width, bias=True),
        *qkv,
        *linear(f"{key}attention.dense", [f"{path}attention/out"], heads, [(width,)], bias=True),
        *norm(f"{key}post_attention_layernorm", f"{path}mlp_norm", width, bias=True),
        *linear(f"{key}mlp.dense_h_to_4h", [f"{path}mlp/up"], (width,), [(mlp_dim,)], bias=True),
        *linear(f"{key}mlp.dense_4h_to_h", [f"{path}mlp/down"], (mlp_dim,), [(width,)], bias=True),
    ]


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
