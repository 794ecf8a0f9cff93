"""Rows of a key table: which tensor of a checkpoint holds which parameters.

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
class Row:
    """One tensor of a checkpoint.

    Attributes:
      key: its name, without prefix.
      shape: its shape there.
      paths: the parameters it holds.
      split: tensor -> those parameters, in order; views of the tensor, which may lie in a file.
      join: the inverse.
      repeats: its parameters are those of an earlier row; a checkpoint may leave it out.
    """

    key: str
    shape: Shape
    paths: tuple[str, ...]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    join: Callable[..., np.ndarray]
    repeats: bool = False


def same(key: str, path: str, shape: Shape, repeats: bool = False) -> Row:
    """A tensor that is one parameter as it stands."""
    return Row(key, shape, (path,), lambda x: (x,), lambda x: x, repeats)


def norm(key: str, path: str, width: int, bias: bool) -> list[Row]:
    """The scale of a norm, and its bias where it has one."""
    rows = [same(f"{key}.weight", f"{path}/scale", (width,))]
    return rows + [same(f"{key}.bias", f"{path}/bias", (width,))] * bias


def linear(
    key: str, paths: Sequence[str], inputs: Shape, outputs: Sequence[Shape], bias: bool
) -> list[Row]:
    """A weight, and its bias, whose rows are those of one or more matrices in order.

    Args:
      key: without `.weight` or `.bias`.
      paths: of the matrices, without `/kernel` or `/bias`.
      inputs: dimensions of the input, the same for all.
      outputs: those of each one's output.
      bias: whether there is one.
    """
    size_in = math.prod(inputs)
    sizes = [math.prod(shape) for shape in outputs]
    ends = np.cumsum(sizes)[:-1].tolist()
    weight = Row(
        f"{key}.weight",
        (sum(sizes), size_in),
        tuple(f"{path}/kernel" for path in paths),
        split=lambda x: tuple(
            part.T.reshape(*inputs, *shape)
            for part, shape in zip(np.split(x, ends), outputs, strict=True)
        ),
        join=lambda *parts: _concatenate(
            [part.reshape(size_in, size).T for part, size in zip(parts, sizes, strict=True)]
        ),
    )
    if not bias:
        return [weight]
    return [
        weight,
        Row(
            f"{key}.bias",
            (sum(sizes),),
            tuple(f"{path}/bias" for path in paths),
            split=lambda x: tuple(
                part.reshape(shape) for part, shape in zip(np.split(x, ends), outputs, strict=True)
            ),
            join=lambda *parts: _concatenate([part.reshape(-1) for part in parts]),
        ),
    ]


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
