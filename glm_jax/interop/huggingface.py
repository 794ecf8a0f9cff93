"""Hugging Face directories: config.json and weights, read and written tensor by tensor.

Weights are found only through `model.safetensors` or its index, or else `pytorch_model.bin` or its
index. Other files of the directory are never read as weights.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from glm_jax.arrays import Array
from glm_jax.config.model import ModelConfig
from glm_jax.files import replaced_directory
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.checkpoint import check_repeated, open_directory
from glm_jax.interop.finite import Unusable
from glm_jax.interop.origin import CONFIG, Origin
from glm_jax.interop.save_plan import AS_LOADED, SaveAs, SavePlan, is_model, plan_save
from glm_jax.interop.weights import INDEX, TensorToWrite, copy_out, in_order, write_safetensors
from glm_jax.models.params import abstract_params
from glm_jax.models.prefix import is_prefix
from glm_jax.models.trees import Params, from_paths, is_stacked, to_paths, unstack_layers
from glm_jax.models.weights import plain
from glm_jax.sharding.mesh import is_first, on_host
from glm_jax.tokenizers.protocol import Tokenizer

T = TypeVar("T")


class Progress(Protocol):
    """Passes items on, of which there are `total`, and shows how far it is."""

    def __call__(self, items: Iterable[T], total: int, /) -> Iterable[T]: ...


def silent(items: Iterable[T], total: int) -> Iterable[T]:
    """A `progress` that shows nothing: returns the items, of which there are `total`."""
    return items


def load_directory(
    path: Path, dtype: str | None, mesh: Mesh, progress: Progress = silent
) -> tuple[ModelConfig, Params, Origin]:
    """Reads a model tensor by tensor onto its devices; warns of tensors with NaN or infinities.

    Args:
      path: a directory with config.json and weights.
      dtype: of the parameters; None keeps that of each tensor.
      mesh: where the parameters go, by the rules of `glm_jax.sharding`.
      progress: wraps the tensors as they are read.

    Returns:
      (config, parameters, origin): `config.param_dtype` is that of the token embedding; layers are
      listed, not stacked.

    Raises:
      UserError: as `open_directory`.
    """
    checkpoint = open_directory(path)
    like = to_paths(abstract_params(checkpoint.config.resolved(), mesh, listed=True))
    params: dict[str, jax.Array] = {}
    unusable = Unusable()
    for row in progress(checkpoint.rows, len(checkpoint.rows)):
        if row.repeats:
            check_repeated(checkpoint, row)
            continue
        tensor = checkpoint.tensor(row).read()
        for name, part in zip(row.paths, row.split(tensor), strict=True):
            target = np.dtype(like[name].dtype if is_prefix(name) else dtype or tensor.dtype)
            look_at = functools.partial(unusable.look_at, row.key)
            params[name] = _to_devices(part, target, like[name].sharding, look_at)
    unusable.warn(str(path))
    config = dataclasses.replace(
        checkpoint.config, param_dtype=str(params["embedding/table"].dtype)
    )
    return config, from_paths(params), checkpoint.origin


def _to_devices(
    part: np.ndarray, dtype: np.dtype, sharding: Sharding, look_at: Callable[[np.ndarray], None]
) -> jax.Array:
    """Copies a view of a mapped file to devices; a sharded array is read shard by shard."""

    def owned(index: tuple[slice, ...] | None) -> np.ndarray:
        # On CPU, jax adopts memory that is aligned to 64 bytes instead of copying it again.
        view = part[index]
        buffer = np.empty(view.size * dtype.itemsize + 64, np.uint8)
        start = -buffer.ctypes.data % 64
        array = buffer[start : start + view.size * dtype.itemsize].view(dtype).reshape(view.shape)
        copy_out(view, array)
        look_at(array)
        return array

    return jax.make_array_from_callback(part.shape, sharding, owned)


def save_directory(
    path: Path,
    config: ModelConfig,
    params: Params,
    origin: Origin,
    save_as: SaveAs = AS_LOADED,
    tokenizer: Tokenizer | None = None,
    progress: Progress = silent,
) -> None:
    """Writes a model tensor by tensor: all of it, or nothing.

    Of several processes all must call this, since each may hold a part of a tensor; the first one
    writes.

    Args:
      path: the directory to write; an existing one is replaced if it holds nothing but a model.
      config, params, origin: of the model; layers stacked or listed. A `Weight` is written as the
        plain matrix that it stands for.
      save_as: names of the tensors and size of the files.
      tokenizer: is written too.
      progress: wraps the tensors as they are written.

    Raises:
      UserError: unknown names, a config that the format cannot express, or a directory that holds
        something else.
    """
    whole = functools.partial(plain, dtype=config.param_dtype)
    listed = to_paths(jax.eval_shape(lambda params: unstack_layers(whole(params)), params))
    plan = plan_save(config, listed, origin, save_as)
    leaves = to_paths(params)

    def leaf(name: str) -> np.ndarray:
        if not is_stacked(params) or not name.startswith("layers/"):
            return _to_host(whole(leaves[name]))
        _, index, rest = name.split("/", 2)
        of_layer = jax.tree.map(lambda part: part[int(index)], leaves[f"layers/{rest}"])
        return _to_host(whole(of_layer))

    if tokenizer is not None and origin.architecture is None:
        special = tokenizer.special
        plan.values.update(eos_token_id=special.eos, pad_token_id=special.pad)
    if origin.eos_ids is not None and origin.architecture is None:
        plan.values.update(eos_token_id=origin.eos_ids)
    write_directory(path, plan, leaf, tokenizer, progress)


def write_directory(
    path: Path,
    plan: SavePlan,
    leaf: Callable[[str], np.ndarray],
    tokenizer: Tokenizer | None = None,
    progress: Progress = silent,
) -> None:
    """Writes the files of a `SavePlan`: all of them, or nothing.

    Args:
      path, tokenizer, progress: as of `save_directory`.
      plan: from `plan_save`.
      leaf: path -> parameter; called when that parameter is written.

    Raises:
      UserError: `path` holds something else.
    """

    unusable = Unusable()

    def make(row: Row) -> np.ndarray:
        # Values beyond the range of a narrower dtype become infinite, which `unusable` reports.
        with np.errstate(over="ignore", invalid="ignore"):
            tensor = np.ascontiguousarray(row.join(*map(leaf, row.paths)), plan.dtypes[row.key])
        unusable.look_at(row.key, tensor)
        return tensor

    def to_write(row: Row) -> TensorToWrite:
        return TensorToWrite(
            name=plan.prefix + row.key,
            shape=row.shape,
            dtype=plan.dtypes[row.key],
            make=functools.partial(make, row),
        )

    if not is_first():
        for rows in plan.shards.values():
            for tensor in in_order(map(to_write, rows)):
                tensor.make()
        return
    with replaced_directory(path, is_model) as directory:
        weight_map = {
            plan.prefix + row.key: file for file, rows in plan.shards.items() for row in rows
        }
        written = (
            name
            for file, rows in plan.shards.items()
            for name in write_safetensors(directory / file, map(to_write, rows))
        )
        for _ in progress(written, len(weight_map)):
            pass
        if len(plan.shards) > 1:
            index = {"metadata": {"total_size": plan.num_bytes}, "weight_map": weight_map}
            _write_json(directory / INDEX, index)
        plan.companions.copy_into(directory)
        if tokenizer is not None:
            tokenizer.save(directory)
        _write_json(directory / CONFIG, plan.values)
    unusable.warn(str(path))


def _to_host(leaf: Array) -> np.ndarray:
    """The array's own memory on CPU, else a host copy that jax does not keep as well."""
    if not isinstance(leaf, jax.Array):
        return leaf
    devices = leaf.devices()
    if len(devices) == 1 and next(iter(devices)).platform == "cpu":
        return np.asarray(leaf)
    return on_host(jnp.copy(leaf) if leaf.is_fully_addressable else leaf)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
