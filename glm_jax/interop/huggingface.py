"""Hugging Face directories: config.json beside model.safetensors, read and written.

Weights are found only through `model.safetensors` or its index `model.safetensors.index.json`; what
else lies in the directory is not looked at.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.key_tables import ARCHITECTURES, Architecture, Row, find_architecture
from glm_jax.interop.tokenizers import Tokenizer
from glm_jax.models.params import Params, abstract_params, from_paths, to_paths, unstack_layers

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model came from, for saving it under the names it had.

    Attributes:
      architecture: of the checkpoint.
      prefix: what stood in front of every name.
      values: its config.json.
    """

    architecture: Architecture = ARCHITECTURES[0]
    prefix: str = ""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_directory(path: Path, dtype: str | None, mesh: Mesh) -> tuple[ModelConfig, Params, Origin]:
    """Reads a model.

    Args:
      path: a directory with config.json and safetensors.
      dtype: of the parameters; None keeps that of each tensor.
      mesh: where the parameters go, by the rules of `glm_jax.sharding`.

    Returns:
      The config (param_dtype that of the word table), the parameters with listed layers, and the
      origin.

    Raises:
      UserError: a file is missing or damaged, the architecture is unknown, or names or shapes are
        not those of the architecture.
    """
    values = _read_config(path)
    architecture = find_architecture(values, str(path / CONFIG))
    config = architecture.read_config(values)
    with contextlib.ExitStack() as stack:
        tensors = _open_tensors(path, stack)
        rows = architecture.rows(config)
        prefix = _check_names(path, tensors, rows, architecture)
        _check_shapes(path, tensors, rows, prefix)
        listed = dataclasses.replace(config, scan_layers=False)
        like = to_paths(abstract_params(listed, mesh))
        params = {}
        for row in rows:
            # One tensor at a time: the host never holds the model twice.
            tensor = tensors[prefix + row.key].get_tensor(prefix + row.key)
            for name, part in zip(row.paths, row.split(tensor), strict=True):
                part = part if dtype is None else part.astype(jnp.dtype(dtype))
                params[name] = jax.device_put(np.ascontiguousarray(part), like[name].sharding)
    param_dtype = str(params["embedding/table"].dtype)
    config = dataclasses.replace(config, param_dtype=param_dtype)
    return config, from_paths(params), Origin(architecture, prefix, values)


def save_directory(
    path: Path,
    config: ModelConfig,
    params: Params,
    origin: Origin,
    names: str = "as_loaded",
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a model: all of it, or nothing.

    Args:
      path: a directory to be made; one that holds nothing but a model is replaced.
      config, params, origin: of the model; layers stacked or listed.
      names: "as_loaded" (with the prefix it had), "original" or "native".
      tokenizer: written beside the weights.
      max_shard_bytes: weights beyond this size go into several files with an index.

    Raises:
      UserError: unknown names, a config that the format cannot say, or a directory that holds
        something else.
    """
    prefix = _prefix(origin, names)
    values = {**origin.values, **origin.architecture.write_config(config)}
    values["torch_dtype"] = config.param_dtype
    rows = origin.architecture.rows(config)
    leaves = to_paths(unstack_layers(params))
    with replaced_directory(path, _is_model) as directory:
        shards = _shards(rows, leaves, max_shard_bytes)
        total = sum(leaf.nbytes for leaf in leaves.values())
        weight_map = {}
        for index, shard in enumerate(shards):
            file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
            file = WEIGHTS if len(shards) == 1 else file
            tensors = {
                prefix + row.key: np.ascontiguousarray(
                    row.join(*(np.asarray(leaves[name]) for name in row.paths))
                )
                for row in shard
            }
            save_file(tensors, directory / file, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(tensors, file))
        if len(shards) > 1:
            index_values = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (directory / INDEX).write_text(json.dumps(index_values, indent=2) + "\n")
        if tokenizer is not None:
            tokenizer.save(directory)
        (directory / CONFIG).write_text(json.dumps(values, indent=2) + "\n")


@contextlib.contextmanager
def replaced_directory(path: Path, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its name when the block ends without an exception.

    Args:
      path: the directory to be written.
      may_replace: whether what lies there, not empty, may be thrown away.

    Raises:
      UserError: `path` is a file, or a directory that may not be replaced.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{str(path)!r} is a file; a model is saved as a directory")
    if path.is_dir() and any(path.iterdir()) and not may_replace(path):
        raise UserError(f"{str(path)!r} is not empty and holds more than a model; nothing written")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.parent / f".{path.name}.{kind}-{os.getpid()}" for kind in ("new", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _is_model(path: Path) -> bool:
    """Whether all that lies there is what `save_directory` writes."""
    names = {file.name for file in path.iterdir()}
    ours = {name for name in names if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)}
    return CONFIG in names and not names - ours - {CONFIG, WEIGHTS, INDEX, "tokenizer.model"}


def _prefix(origin: Origin, names: str) -> str:
    if names == "as_loaded":
        return origin.prefix
    if names == "original":
        return origin.architecture.prefixes[0]
    if names == "native":
        raise UserError(
            f"{origin.architecture.name} has no native names in transformers; names may be "
            "'as_loaded' or 'original'"
        )
    raise UserError(f"names must be 'as_loaded', 'original' or 'native'; got {names!r}")


def _shards(rows: list[Row], leaves: Mapping[str, Any], limit: int) -> list[list[Row]]:
    """Consecutive rows whose tensors stay within `limit` bytes together, one at least."""
    shards: list[list[Row]] = []
    room = 0
    for row in rows:
        size = sum(leaves[name].nbytes for name in row.paths)
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(row)
        room -= size
    return shards


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path / CONFIG}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path / CONFIG} must hold a JSON object; got {type(values).__name__}")
    nested = values.get("config")
    return nested if isinstance(nested, dict) else values


def _open_tensors(path: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Opens every file of weights; tensor name -> the file that holds it."""
    index = path / INDEX
    if (path / WEIGHTS).is_file():
        file = _open_file(path / WEIGHTS, stack)
        return dict.fromkeys(file.keys(), file)
    if not index.is_file():
        raise UserError(
            f"{str(path)!r} holds neither {WEIGHTS} nor {INDEX}; other formats (pytorch_model.bin) "
            "must be converted to safetensors first"
        )
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{index} is not an index of safetensors: {error!r}") from error
    files = {name: _open_file(path / name, stack) for name in sorted(set(weight_map.values()))}
    for key, name in weight_map.items():
        if key not in files[name].keys():  # noqa: SIM118
            raise UserError(f"{index} says that {key} is in {name}; it is not")
    return {key: files[name] for key, name in weight_map.items()}


def _open_file(path: Path, stack: contextlib.ExitStack) -> Any:
    if not path.is_file():
        raise UserError(f"{path} is missing; {INDEX} names it")
    try:
        return stack.enter_context(safe_open(path, framework="numpy"))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete: {error}") from error


def _check_names(
    path: Path, tensors: Mapping[str, Any], rows: list[Row], architecture: Architecture
) -> str:
    """Returns the prefix of the names.

    Raises:
      UserError: names are missing or unknown.
    """
    prefixes = [p for p in architecture.prefixes if f"{p}{rows[0].key}" in tensors]
    prefix = prefixes[0] if prefixes else architecture.prefixes[0]
    wanted = {prefix + row.key for row in rows}
    missing, extra = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
    if missing or extra:
        raise UserError(
            f"the weights in {str(path)!r} do not fit {architecture.name}: "
            f"missing {_some(missing)}; unknown {_some(extra)}"
        )
    return prefix


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _check_shapes(path: Path, tensors: Mapping[str, Any], rows: list[Row], prefix: str) -> None:
    for row in rows:
        key = prefix + row.key
        shape = tuple(tensors[key].get_slice(key).get_shape())
        if shape != row.shape:
            raise UserError(
                f"{key} in {str(path)!r} has shape {shape}; its config.json asks for {row.shape}"
            )
