"""A Hugging Face directory that is looked at: its config, and which tensors are there."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.key_tables import candidates, choose
from glm_jax.interop.weights import StoredTensor, open_weights

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model came from, for saving it under the names it had.

    Attributes:
      architecture: of the checkpoint; None for a model that was trained here.
      prefix: what stood in front of every name.
      values: its config.json.
      directory: where it lay; `COMPANIONS` are copied from there.
    """

    architecture: Architecture | None = None
    prefix: str = ""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    directory: Path | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A directory whose config, names and shapes are checked, and of which no tensor is read yet.

    Attributes:
      architecture, config, origin: what it is; param_dtype is that of the word table.
      rows: those of the key table whose tensors are there.
      tensors: by name, prefix included.
    """

    architecture: Architecture
    config: ModelConfig
    origin: Origin
    rows: list[Row]
    tensors: Mapping[str, StoredTensor]

    def tensor(self, row: Row) -> StoredTensor:
        """What a row of the key table is in this directory."""
        return self.tensors[self.origin.prefix + row.key]


def open_directory(path: Path) -> Checkpoint:
    """Looks at a model without reading it.

    Raises:
      UserError: a file is missing or damaged, the architecture is unknown, or names or shapes are
        not those of the architecture.
    """
    values = _read_config(path)
    found = candidates(values, str(path / CONFIG))
    tensors = open_weights(path)
    architecture = choose(found, values, tensors.keys(), str(path))
    config = architecture.read_config(values)
    rows = architecture.rows(config)
    prefix = _check_names(path, tensors, rows, architecture)
    rows = [row for row in rows if not row.repeats or prefix + row.key in tensors]
    _check_tensors(path, tensors, rows, prefix)
    dtype = str(tensors[prefix + rows[0].key].dtype)
    config = dataclasses.replace(config, param_dtype=dtype)
    return Checkpoint(
        architecture, config, Origin(architecture, prefix, values, path), rows, tensors
    )


def check_repeated(checkpoint: Checkpoint, row: Row) -> None:
    """Compares a tied output matrix with the word table.

    Raises:
      UserError: they differ.
    """
    first = next(other for other in checkpoint.rows if other.paths == row.paths)
    one, two = checkpoint.tensor(first).read(), checkpoint.tensor(row).read()
    step = 4096
    if not all(
        np.array_equal(one[i : i + step], two[i : i + step]) for i in range(0, len(one), step)
    ):
        raise UserError(
            f"config.json and weights in {str(checkpoint.origin.directory)!r} disagree: "
            f"tie_word_embeddings is true, but {first.key} and {row.key} differ"
        )


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path / CONFIG}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path / CONFIG} must hold a JSON object; got {type(values).__name__}")
    nested = values.get("config")
    return nested if isinstance(nested, dict) else values


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
    optional = {prefix + row.key for row in rows if row.repeats}
    missing = sorted(wanted - optional - tensors.keys())
    ignored = re.compile(architecture.ignored)
    extra = sorted(key for key in tensors.keys() - wanted if not ignored.fullmatch(key))
    if missing or extra:
        raise UserError(
            f"the weights in {str(path)!r} do not fit {architecture.name} with its config.json: "
            f"missing {_some(missing)}; unknown {_some(extra)}"
        )
    return prefix


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _check_tensors(
    path: Path, tensors: Mapping[str, StoredTensor], rows: list[Row], prefix: str
) -> None:
    for row in rows:
        key = prefix + row.key
        tensor = tensors[key]
        if tensor.shape != row.shape:
            raise UserError(
                f"{key} in {str(path)!r} has shape {tensor.shape}; its config.json asks for "
                f"{row.shape}"
            )
        if tensor.dtype is None:
            raise UserError(
                f"{key} in {str(path)!r} is neither float32, float16 nor bfloat16; quantised "
                "checkpoints are not supported"
            )
