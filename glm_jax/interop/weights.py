"""Reads the tensors of a Hugging Face directory one at a time, and writes safetensors likewise.

A file is mapped anew for each tensor and released with it, so that the pages of earlier tensors do
not add up. A safetensors file has 8 bytes with the length of a JSON header, the header, and the
data.
"""

import dataclasses
import functools
import importlib
import json
import math
import mmap
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from types import ModuleType
from typing import Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from glm_jax.errors import UserError, how_to_install
from glm_jax.json_files import JsonObject, printable, read_object, shown

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_WEIGHTS, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER_WEIGHTS, TORCH_ADAPTER = "adapter_model.safetensors", "adapter_model.bin"

_DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype(np.int8),
}
# A transposed copy of this size stays in the cache (8 times as fast as 32 MiB).
_BLOCK_BYTES = 2**20
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class TorchTensor(Protocol):
    """What is read of a tensor of torch, which is not imported for its types."""

    shape: Sequence[int]
    dtype: object

    def detach(self) -> "TorchTensor": ...
    def view(self, dtype: object) -> "TorchTensor": ...
    def numpy(self) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
      shape: its shape.
      dtype: float32, float16, bfloat16 or int8; None: another one, which cannot be read.
      read: maps the file; the array is read-only and backed by the file.
      code: how the file calls its dtype.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | None
    read: Callable[[], np.ndarray]
    code: str = ""


@dataclasses.dataclass(frozen=True)
class TensorToWrite:
    """A tensor to write; `make` is called when it is written, and the result released."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_weights(path: Path) -> dict[str, StoredTensor]:
    """Finds the tensors of a directory by `model.safetensors` or its index, else by those of .bin.

    Raises:
      UserError: no weights, a missing, damaged or incomplete file, or .bin without torch.
    """
    for weights, index, open_file in (
        (WEIGHTS, INDEX, _open_safetensors),
        (TORCH_WEIGHTS, TORCH_INDEX, _open_torch),
    ):
        if (path / weights).is_file():
            return open_file(path / weights)
        if (path / index).is_file():
            return _open_indexed(path / index, open_file)
    raise UserError(
        f"{str(path)!r} holds no weights: none of {WEIGHTS}, {INDEX}, {TORCH_WEIGHTS}, "
        f"{TORCH_INDEX}"
    )


def open_adapter(path: Path) -> dict[str, StoredTensor] | None:
    """The tensors of an adapter's directory by PEFT's names of files; None: it has none of these.

    Raises:
      UserError: as `open_weights`.
    """
    if (path / ADAPTER_WEIGHTS).is_file():
        return _open_safetensors(path / ADAPTER_WEIGHTS)
    return _open_torch(path / TORCH_ADAPTER) if (path / TORCH_ADAPTER).is_file() else None


def _open_indexed(
    index: Path, open_file: Callable[[Path], dict[str, StoredTensor]]
) -> dict[str, StoredTensor]:
    weight_map = _weight_map(index)
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(f"{index.parent / missing[0]} is missing{others}; {index.name} names it")
    files = {name: open_file(index.parent / name) for name in names}
    for key, name in weight_map.items():
        if key not in files[name]:
            raise UserError(f"{index} says that {printable(key)} is in {name}; it is not")
    return {key: files[name][key] for key, name in weight_map.items()}


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name, in the directory of the index."""
    try:
        weight_map = read_object(index).get("weight_map")
    except UserError as error:
        raise UserError(f"{index} is not an index of weights: {error}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} is not an index of weights: it has no weight_map")
    for key, name in weight_map.items():
        path = PurePath(name) if isinstance(name, str) else PurePath("/")
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in str(path):
            raise UserError(
                f"{index} is not an index of weights: it says that {printable(key)} is in "
                f"{shown(name)}; it may only name files of its own directory"
            )
    return weight_map


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        # Checks the header, and the length of the data against it.
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete: {error}") from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: _stored(path, 8 + length, about) for name, about in header.items()}


def _stored(path: Path, start: int, about: JsonObject) -> StoredTensor:
    shape, dtype = tuple(about["shape"]), _DTYPES.get(about["dtype"])
    offset = start + about["data_offsets"][0]
    read = functools.partial(np.memmap, path, dtype=dtype, mode="r", offset=offset, shape=shape)
    return StoredTensor(shape, dtype, read, about["dtype"])


def own_memory(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array in pages of its own, which go back to the system when it is released.

    What malloc gives stays with the process between two large tensors, in pieces that the next one
    may not fit. Pages are also aligned as jax asks for, to take them without a copy.
    """
    size = math.prod(shape) * dtype.itemsize
    # Behind a memoryview, so that `copy_out` does not take it for a file that can be read again.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = memoryview(mmap.mmap(-1, max(size, 1), flags=flags))
    return np.frombuffer(pages, np.uint8, size).view(dtype).reshape(shape)


def copy_out(view: np.ndarray, out: np.ndarray) -> None:
    """Copies a view of a mapped tensor block by block, releasing the pages that have been copied.

    Args:
      view: of an array from `StoredTensor.read`, with at least one axis.
      out: array of the same shape and any dtype.
    """
    owner: object = view
    while isinstance(owner, np.ndarray):
        owner = owner.base
    # The slowest axis in the file's layout.
    axis = int(np.argmax(view.strides))
    step = max(1, view.shape[axis] * _BLOCK_BYTES // view.nbytes)
    for start in range(0, view.shape[axis], step):
        block = (*[slice(None)] * axis, slice(start, start + step))
        # Values beyond the range of a narrower dtype become infinite; `finite` reports them.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out[block], view[block], casting="unsafe")
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)


def in_order(tensors: Iterable[TensorToWrite]) -> list[TensorToWrite]:
    """The tensors as a file holds them: widest dtype first, as in the safetensors package.

    So every tensor is aligned.
    """
    return sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)


def write_safetensors(path: Path, tensors: Iterable[TensorToWrite]) -> Iterator[str]:
    """Writes a file tensor by tensor; yields the name of each tensor once it is written.

    Args:
      path: of the file.
      tensors: float32, float16, bfloat16 or int8.
    """
    ordered = in_order(tensors)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in ordered:
        begin, end = end, end + tensor.num_bytes
        code = _CODES[tensor.dtype]
        header[tensor.name] = {
            "dtype": code,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in ordered:
            array = np.ascontiguousarray(tensor.make(), dtype=tensor.dtype)
            if array.shape != tensor.shape:
                raise ValueError(f"{tensor.name} has shape {array.shape}, not {tensor.shape}")
            file.write(array.reshape(-1).view(np.uint8).data)
            del array
            yield tensor.name


def _open_torch(path: Path) -> dict[str, StoredTensor]:
    torch = _torch(path)
    tensors, mapped = _load_torch(torch, path)
    # A file that cannot be mapped is kept in memory until its last tensor is read.
    kept = None if mapped else tensors

    def read(name: str) -> np.ndarray:
        tensor = (kept or _load_torch(torch, path)[0])[name].detach()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    dtypes: dict[object, np.dtype] = {
        getattr(torch, name): np.dtype(dtype)
        for name, dtype in (
            ("float32", np.float32),
            ("float16", np.float16),
            ("bfloat16", ml_dtypes.bfloat16),
            ("int8", np.int8),
        )
    }
    return {
        name: StoredTensor(
            tuple(t.shape), dtypes.get(t.dtype), functools.partial(read, name), str(t.dtype)
        )
        for name, t in tensors.items()
        if isinstance(t, torch.Tensor)
    }


def _torch(path: Path) -> ModuleType:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"{path} needs torch to be read: give safetensors, or install it with: "
            f"{how_to_install('interop')}"
        ) from error


def _load_torch(torch: ModuleType, path: Path) -> tuple[dict[str, TorchTensor], bool]:
    """The tensors of a .bin file, and whether they are mapped (not in files before torch 1.6)."""
    load = functools.partial(torch.load, path, map_location="cpu", weights_only=True)
    try:
        try:
            tensors, mapped = load(mmap=True), True
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            tensors, mapped = load(), False
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than weights, or is damaged: {_line(error)}") from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged or incomplete: {_line(error)}") from error
    if not isinstance(tensors, dict):
        raise UserError(f"{path} holds a {type(tensors).__name__}, not a dict of tensors")
    return tensors, mapped


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
