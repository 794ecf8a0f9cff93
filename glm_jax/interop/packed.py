"""Quantised weights as ChatGLM is published: integers, a scale per output, and config.json.

    X.weight          int8 [outputs, inputs], or [outputs, inputs / 2] of 4 bits
    X.weight_scale    float16 [outputs]
    config.json       "quantization_bit": 8 or 4

A byte of 4 bits holds an even column in its high half and the odd one behind it in its low half,
both in two's complement:

    columns 0 and 1    3, -2    ->    0011 1110

Scales of groups of inputs are our own addition: X.weight_scale [outputs, groups], beside
"quantization_group_size" in config.json.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from glm_jax.adapters.quantising import Quantize, quantised_rows
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import whole
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.weights import StoredTensor, copy_out, own_memory
from glm_jax.json_files import JsonObject, shown, some

BITS, GROUP_SIZE, EMBEDDINGS = (
    "quantization_bit",
    "quantization_group_size",
    "quantization_embeddings",
)
KEYS = frozenset({BITS, GROUP_SIZE, EMBEDDINGS})
SCALE = "_scale"
TABLES = ("embedding/table", "output/table")
_INT8 = np.dtype(np.int8)
# A block of rows that is quantised at once.
_BLOCK_BYTES = 2**20
# Part of a tensor's name -> what quantised it.
_MARKS = {
    ".g_idx": "GPTQ",
    ".qweight": "AWQ or GPTQ",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".quant_state": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
}
_READ = (
    "what is read are float32, float16 and bfloat16, and INT8 and INT4 as ChatGLM is published "
    "(quantization_bit in config.json)"
)


@dataclasses.dataclass(frozen=True)
class Packed:
    """A tensor of a checkpoint, quantised.

    Attributes:
      row: of the plain tensor, [outputs, inputs].
      bits: 8 or 4.
      groups: of its inputs.
    """

    row: Row
    bits: int
    groups: int

    @property
    def values(self) -> Row:
        """The row of its integers."""
        outputs, inputs = self.row.shape
        row = dataclasses.replace(
            self.row, paths=tuple(f"{path}/values" for path in self.row.paths), dtype=_INT8
        )
        if self.bits == 8:
            return row
        return dataclasses.replace(
            row,
            shape=(outputs, inputs // 2),
            split=lambda x: row.split(unpacked(x)),
            join=lambda *parts: packed(row.join(*parts)),
        )

    @property
    def scale(self) -> Row:
        """The row of its scales."""
        outputs, _ = self.row.shape
        divided, is_table = self.row.outputs, self.row.paths[0] in TABLES
        shape = (outputs,) if self.groups == 1 else (outputs, self.groups)

        def split(tensor: np.ndarray) -> tuple[np.ndarray, ...]:
            parts = divided.split(tensor.reshape(outputs, self.groups))
            return parts if is_table else tuple(np.moveaxis(part, -1, 0) for part in parts)

        def join(*parts: np.ndarray) -> np.ndarray:
            if not is_table:
                parts = tuple(np.moveaxis(part, 0, -1) for part in parts)
            return divided.join(*parts).reshape(shape)

        paths = tuple(f"{path}/scale" for path in self.row.paths)
        return Row(self.row.key + SCALE, shape, paths, split, join, self.row.repeats)


def unpacked(tensor: np.ndarray) -> np.ndarray:
    """int8 [outputs, inputs / 2] with two values in a byte -> int8 [outputs, inputs]."""
    values = own_memory((len(tensor), 2 * tensor.shape[1]), _INT8)
    np.right_shift(tensor, 4, out=values[:, 0::2])
    odd = values[:, 1::2]
    np.left_shift(tensor, 4, out=odd)
    np.right_shift(odd, 4, out=odd)
    return values


def packed(values: np.ndarray) -> np.ndarray:
    """The inverse of `unpacked`; int8 or int4 [outputs, inputs]."""
    high = np.left_shift(values[:, 0::2].astype(np.int8), 4)
    return high | (values[:, 1::2].astype(np.int8) & 0xF)


def is_layer_matrix(row: Row) -> bool:
    """Whether a row holds matrices of a layer."""
    return all(path.startswith("layers/") and path.endswith("/kernel") for path in row.paths)


def is_quantisable(path: str, how: Quantize) -> bool:
    """Whether `how` quantises the parameter of a path."""
    is_layers = path.startswith("layers/") and path.endswith("/kernel")
    return is_layers or (how.embedding and path in TABLES)


def quantise(name: str, tensor: np.ndarray, how: Quantize) -> tuple[np.ndarray, np.ndarray]:
    """Quantises a tensor block by block, releasing what was read of a mapped file.

    Args:
      name: of the tensor, for messages.
      tensor: [outputs, inputs], float32, float16 or bfloat16; also a view of a mapped file.

    Returns:
      (values, scale): int8 [outputs, inputs] and float16 [outputs, groups].

    Raises:
      UserError: groups do not divide the inputs.
    """
    outputs, inputs = tensor.shape
    groups = how.num_groups(name, inputs)
    values = own_memory((outputs, inputs), _INT8)
    scale = np.empty((outputs, groups), np.float16)
    step = max(1, _BLOCK_BYTES // (4 * inputs))
    block = np.empty((step, inputs), np.float32)
    for start in range(0, outputs, step):
        rows = tensor[start : start + step]
        copy_out(rows, block[: len(rows)])
        index = slice(start, start + len(rows))
        values[index], scale[index] = quantised_rows(block[: len(rows)], groups, how)
    return values, scale


def stored_dtype(bits: int) -> np.dtype:
    """Of the integers of a model: int8, or int4 (`jnp.int4`)."""
    return _INT8 if bits == 8 else np.dtype(ml_dtypes.int4)


def read_bits(values: Mapping[str, object]) -> int | None:
    """`quantization_bit` of a config.json; None: it is not quantised.

    Raises:
      UserError: it is neither 8 nor 4, or another method quantised the model.
    """
    settings = values.get("quantization_config")
    if settings:
        known = settings if isinstance(settings, dict) else {}
        method = known.get("quant_method", settings)
        raise UserError(
            f"the model is quantised by {shown(method)} (quantization_config in config.json); "
            f"{_READ}"
        )
    bits = values.get(BITS)
    if bits in (None, 0) and not isinstance(bits, bool):
        return None
    if bits not in (4, 8) or not isinstance(bits, int):
        raise UserError(f"{BITS} in config.json must be 8, 4 or 0; got {shown(bits)}")
    return bits


def packed_rows(
    path: Path, values: Mapping[str, object], rows: list[Row], tensors: Mapping[str, StoredTensor]
) -> list[Row]:
    """The rows of a key table, those of quantised tensors replaced by two: integers and scales.

    Args:
      path: of the directory, for messages.
      values: its config.json.
      rows: of the plain model, keys with their prefix left out.
      tensors: by name, prefix left out.

    Raises:
      UserError: the tensors are not what config.json says; it names them.
    """
    bits = read_bits(values)
    refuse_other_methods(path, tensors)
    found = [row for row in rows if row.key + SCALE in tensors]
    if bits is None:
        if found:
            raise UserError(
                f"{found[0].key}{SCALE} in {str(path)!r} is the scale of a quantised matrix; its "
                f"config.json has no {BITS}, 8 or 4"
            )
        return rows
    if not found:
        raise UserError(
            f"config.json in {str(path)!r} says {BITS}={bits}, but no weight there has a scale "
            f"({next(row.key for row in rows if is_layer_matrix(row))}{SCALE})"
        )
    all_rows: list[Row] = []
    for row in rows:
        if row.key + SCALE not in tensors:
            all_rows.append(row)
            continue
        pair = Packed(row, bits, _groups(values, row))
        _check_bits(path, pair, tensors.get(row.key))
        all_rows += [pair.values, pair.scale]
    return all_rows


def _groups(values: Mapping[str, object], row: Row) -> int:
    if values.get(GROUP_SIZE) is None:
        return 1
    size, inputs = whole(values, GROUP_SIZE), row.shape[1]
    if inputs % size:
        raise UserError(
            f"{GROUP_SIZE}={size} in config.json does not divide the {inputs} inputs of {row.key}"
        )
    return inputs // size


def _check_bits(path: Path, pair: Packed, tensor: StoredTensor | None) -> None:
    """Refuses integers of another number of bits than config.json says."""
    if tensor is None:
        raise UserError(f"{pair.row.key} is missing in {str(path)!r}; its scale is there")
    other = dataclasses.replace(pair, bits=12 - pair.bits)
    if tensor.dtype == _INT8 and tensor.shape == other.values.shape:
        raise UserError(
            f"{BITS}={pair.bits} in config.json, but {pair.row.key} in {str(path)!r} has the "
            f"shape {tensor.shape} of {other.bits} bits"
        )


def refuse_other_methods(path: Path, names: Mapping[str, object]) -> None:
    """Refuses the tensors of AWQ, GPTQ and others by their names.

    Raises:
      UserError: names the method, a tensor, and what is read.
    """
    for mark, method in _MARKS.items():
        odd = [name for name in names if mark in name]
        if odd:
            raise UserError(
                f"{str(path)!r} is quantised by {method} ({some(sorted(odd))}); {_READ}"
            )


def config_values(packings: list[Packed]) -> JsonObject:
    """What config.json says of a model with these quantised tensors.

    Raises:
      UserError: they have different bits or groups, which it cannot say.
    """
    if not packings:
        return {}
    layer = [pair for pair in packings if is_layer_matrix(pair.row)]
    bits = {pair.bits for pair in packings}
    sizes = {pair.row.shape[1] // pair.groups for pair in packings if pair.groups > 1}
    mixed = len({pair.groups == 1 for pair in packings if pair.row.shape[1] not in sizes}) > 1
    if len(bits) > 1 or len(sizes) > 1 or mixed or not layer:
        raise UserError(
            f"config.json has one {BITS} and one {GROUP_SIZE} for all matrices; this model has "
            f"bits {sorted(bits)}, groups of {sorted(sizes) or 'none'}"
        )
    values: JsonObject = {BITS: bits.pop()}
    if sizes:
        values[GROUP_SIZE] = sizes.pop()
    if len(layer) < len(packings):
        values[EMBEDDINGS] = True
    return values
