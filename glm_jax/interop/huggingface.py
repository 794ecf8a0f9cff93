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
from jax.sharding import Mesh, NamedSharding, Sharding
from jaxtyping import PyTree

from glm_jax.adapters.quantised import from_arrays, is_quantised, quantised
from glm_jax.adapters.quantising import Quantize
from glm_jax.arrays import Array
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.files import replaced_directory
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.checkpoint import Checkpoint, check_repeated, open_directory
from glm_jax.interop.finite import Unusable
from glm_jax.interop.origin import CONFIG, Origin
from glm_jax.interop.packed import (
    BITS,
    Packed,
    is_quantisable,
    quantise,
    read_bits,
    stored_dtype,
)
from glm_jax.interop.save_plan import AS_LOADED, SaveAs, SavePlan, is_model, plan_save
from glm_jax.interop.weights import (
    INDEX,
    TensorToWrite,
    copy_out,
    in_order,
    own_memory,
    write_safetensors,
)
from glm_jax.models.params import abstract_params
from glm_jax.models.prefix import is_prefix
from glm_jax.models.trees import Params, is_stacked, to_paths, unstack_layers
from glm_jax.models.weights import is_weight, plain
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
    path: Path,
    dtype: str | None,
    mesh: Mesh,
    progress: Progress = silent,
    quantize: Quantize | None = None,
) -> tuple[ModelConfig, Params, Origin]:
    """Reads a model tensor by tensor onto its devices; warns of tensors with NaN or infinities.

    Args:
      path: a directory with config.json and weights.
      dtype: of the parameters; None keeps that of each tensor. Quantised ones stay as they are.
      mesh: where the parameters go, by the rules of `glm_jax.sharding`.
      progress: wraps the tensors as they are read.
      quantize: how matrices are quantised, each as soon as it is read; None: they are not.

    Returns:
      (config, parameters, origin): `config.param_dtype` is that of the token embedding, or where it
      is quantised of the norms; layers are listed, not stacked.

    Raises:
      UserError: as `open_directory`; or `quantize` for a model that is quantised.
    """
    checkpoint = open_directory(path)
    if quantize is not None and any(row.dtype is not None for row in checkpoint.rows):
        raise UserError(
            f"quantize: the model in {str(path)!r} is quantised already "
            f"({BITS}={checkpoint.origin.values[BITS]} in its config.json); load it without"
        )
    reader = _Reader(checkpoint, dtype, mesh, quantize)
    for row in progress(checkpoint.rows, len(checkpoint.rows)):
        if row.repeats:
            check_repeated(checkpoint, row)
        else:
            reader.read(row)
    reader.unusable.warn(str(path))
    config = dataclasses.replace(
        checkpoint.config, param_dtype=dtype or checkpoint.config.param_dtype
    )
    return config, from_arrays(reader.arrays), checkpoint.origin


class _Reader:
    """Reads the tensors of a checkpoint one by one into the arrays of a model.

    Attributes:
      arrays: of the parameters; those of quantised ones by names of their own, ../values.
      unusable: collects what is not finite.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: str | None, mesh: Mesh, quantize: Quantize | None
    ):
        self.arrays: dict[str, jax.Array] = {}
        self.unusable = Unusable()
        self._checkpoint, self._dtype, self._quantize = checkpoint, dtype, quantize
        self._integers = stored_dtype(read_bits(checkpoint.origin.values) or 8)
        self._like = to_paths(abstract_params(checkpoint.config.resolved(), mesh, listed=True))

    def read(self, row: Row) -> None:
        """Reads the tensor of a row, and quantises it where that is asked for."""
        tensor, how = self._checkpoint.tensor(row).read(), self._quantize
        if how is None or not is_quantisable(row.paths[0], how):
            self._put(row, tensor, row.dtype and self._integers)
            return
        values, scale = quantise(row.key, tensor, how)
        del tensor
        # 8 bits: what was just made is not packed as in a file.
        pair = Packed(row, 8, scale.shape[1])
        self._put(pair.values, values, stored_dtype(how.bits))
        del values
        self._put(pair.scale, scale, scale.dtype)

    def _put(self, row: Row, tensor: np.ndarray, dtype: np.dtype | None) -> None:
        """Moves the parts of a tensor to the devices; dtype None: that of the others."""
        for name, part in zip(row.paths, row.split(tensor), strict=True):
            is_scale = name.endswith(("/kernel/scale", "/table/scale"))
            own = tensor.dtype if is_scale else np.dtype(self._dtype or tensor.dtype)
            own = self._like[name].dtype if is_prefix(name) else own
            look_at = functools.partial(self.unusable.look_at, row.key)
            self.arrays[name] = _to_devices(part, dtype or own, self._sharding(name, part), look_at)

    def _sharding(self, name: str, part: np.ndarray) -> Sharding:
        if name in self._like:
            return self._like[name].sharding
        path, _, last = name.rpartition("/")
        matrix = self._like[path]
        if last == "values":
            return matrix.sharding
        specs = quantised(path, matrix, part).specs(matrix.sharding.spec)
        return NamedSharding(matrix.sharding.mesh, specs.scale)


def _to_devices(
    part: np.ndarray, dtype: np.dtype, sharding: Sharding, look_at: Callable[[np.ndarray], None]
) -> jax.Array:
    """Copies a view of a mapped file to devices; a sharded array is read shard by shard."""

    def owned(index: tuple[slice, ...] | None) -> np.ndarray:
        # On CPU, jax adopts such memory instead of copying it again.
        view = part[index]
        array = own_memory(view.shape, dtype)
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
      config, params, origin: of the model; layers stacked or listed. Quantised matrices are
        written as ChatGLM's are published, a `Weight` of another kind as the plain matrix that it
        stands for.
      save_as: names of the tensors, size of the files, and whether quantised ones become plain.
      tokenizer: is written too.
      progress: wraps the tensors as they are written.

    Raises:
      UserError: unknown names, a config that the format cannot express, or a directory that holds
        something else.
    """
    whole = functools.partial(_plain, dtype=config.param_dtype, also=save_as.dequantize)
    listed = to_paths(jax.eval_shape(lambda params: unstack_layers(whole(params)), params))
    plan = plan_save(config, listed, origin, save_as)
    leaves = to_paths(params)

    def leaf(name: str) -> np.ndarray:
        path, _, last = name.rpartition("/")
        of_weight = is_weight(listed.get(path))
        node = weight(path if of_weight else name)
        return _to_host(getattr(node, last) if of_weight else node)

    def weight(path: str) -> PyTree:
        if not is_stacked(params) or not path.startswith("layers/"):
            return whole(leaves[path])
        _, index, rest = path.split("/", 2)
        of_layer = jax.tree.map(lambda part: part[int(index)], leaves[f"layers/{rest}"])
        return whole(of_layer)

    if tokenizer is not None and origin.architecture is None:
        special = tokenizer.special
        plan.values.update(eos_token_id=special.eos, pad_token_id=special.pad)
    if origin.eos_ids is not None and origin.architecture is None:
        plan.values.update(eos_token_id=origin.eos_ids)
    write_directory(path, plan, leaf, tokenizer, progress)


def _plain(params: PyTree, dtype: str, also: bool) -> PyTree:
    """Replaces weights by plain matrices, quantised ones if `also`."""
    return jax.tree.map(
        lambda leaf: leaf if is_quantised(leaf) and not also else plain(leaf, dtype),
        params,
        is_leaf=is_weight,
    )


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
    # Of int4 there is no memory that numpy could share.
    if len(devices) == 1 and next(iter(devices)).platform == "cpu" and leaf.dtype != jnp.int4:
        return np.asarray(leaf)
    return on_host(jnp.copy(leaf) if leaf.is_fully_addressable else leaf)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
