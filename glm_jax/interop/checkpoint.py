"""Opens a Hugging Face directory without reading weights: checks config, names and shapes."""

import dataclasses
import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.key_tables import candidates, choose
from glm_jax.interop.origin import CONFIG, Origin, eos_in, read_generation
from glm_jax.interop.packed import SCALE, packed_rows, read_bits
from glm_jax.interop.weights import StoredTensor, open_weights
from glm_jax.json_files import JsonObject, read_object, some

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened directory: config, names and shapes are checked, but no tensor has been read.

    Attributes:
      architecture, config, origin: of the model; `config.param_dtype` is that of the
        first tensor that is not quantised, the token embedding.
      rows: the rows of the key table whose tensors the directory holds.
      tensors: the tensors by name, prefix included.
    """

    architecture: Architecture
    config: ModelConfig
    origin: Origin
    rows: list[Row]
    tensors: Mapping[str, StoredTensor]

    def tensor(self, row: Row) -> StoredTensor:
        """The tensor of a row of the key table."""
        return self.tensors[self.origin.prefix + row.key]


def open_directory(path: Path) -> Checkpoint:
    """Opens a directory and checks its config, and the names and shapes of its tensors.

    Raises:
      UserError: a file is missing or damaged, the architecture is unknown, or names or shapes are
        not those of the architecture.
    """
    values = _read_config(path)
    read_bits(values)
    found = candidates(values, str(path / CONFIG))
    tensors = open_weights(path)
    architecture = choose(found, values, tensors.keys(), str(path))
    config = architecture.read_config(values)
    if config.num_layers > len(tensors):
        # Checked before the names of all these layers are made.
        raise UserError(
            f"config.json in {str(path)!r} asks for {config.num_layers} layers; its weights are "
            f"{len(tensors)} tensors"
        )
    if doubt := architecture.doubt(values):
        _warn_once(f"{path}: {doubt}")
    compared = architecture.ties_equal and values.get("tie_word_embeddings") is None
    if compared:
        config = dataclasses.replace(
            config, tied_embeddings=_is_tied(architecture, config, tensors)
        )
    prefix, rows = _packed_rows(path, values, architecture, config, tensors)
    _check_names(path, tensors, rows, architecture, prefix)
    rows = [row for row in rows if not row.repeats or prefix + row.key in tensors]
    _check_tensors(path, tensors, rows, prefix)
    # What was compared to tell whether the LM head is tied is not compared again.
    rows = [row for row in rows if not (compared and row.repeats and row.dtype is None)]
    first = next(row for row in rows if row.dtype is None)
    config = dataclasses.replace(config, param_dtype=str(tensors[prefix + first.key].dtype))
    origin = Origin(architecture, prefix, values, path, read_generation(path))
    eos_in(str(path / CONFIG), values)
    return Checkpoint(architecture, config, origin, rows, tensors)


def check_repeated(checkpoint: Checkpoint, row: Row) -> None:
    """Compares the tensor of a tied LM head with the token embedding.

    Raises:
      UserError: they differ.
    """
    first = next(other for other in checkpoint.rows if other.paths == row.paths)
    if first is row:
        raise UserError(
            f"of the tied token embedding and LM head in {str(checkpoint.origin.directory)!r} "
            f"{row.key} alone is {'plain' if row.dtype is None else 'quantised'}"
        )
    if not _is_same(checkpoint.tensor(first), checkpoint.tensor(row)):
        raise UserError(
            f"config.json and weights in {str(checkpoint.origin.directory)!r} disagree: "
            f"tie_word_embeddings is true, but {first.key} and {row.key} differ"
        )


def _is_tied(
    architecture: Architecture, config: ModelConfig, tensors: Mapping[str, StoredTensor]
) -> bool:
    """Whether the LM head that `config` takes for tied is missing, or equal to the embedding."""
    prefix = architecture.prefixes[0]
    rows = architecture.rows(config)
    head = next(row for row in rows if row.repeats)
    embedding = next(row for row in rows if row.paths == head.paths)
    if prefix + head.key not in tensors or prefix + embedding.key not in tensors:
        return True
    both = [(prefix + embedding.key + end, prefix + head.key + end) for end in ("", SCALE)]
    return all(
        _is_same(tensors[one], tensors[two])
        if one in tensors and two in tensors
        else one not in tensors and two not in tensors
        for one, two in both
    )


def _is_same(one: StoredTensor, two: StoredTensor) -> bool:
    """Whether two matrices are equal; they are read up to the first block that is not."""
    if one.shape != two.shape or None in (one.dtype, two.dtype):
        return False
    first, second, step = one.read(), two.read(), 4096
    return all(
        np.array_equal(first[i : i + step], second[i : i + step])
        for i in range(0, len(first), step)
    )


def _read_config(path: Path) -> JsonObject:
    values = read_object(path / CONFIG)
    nested = values.get("config")
    return nested if isinstance(nested, dict) else values


def _packed_rows(
    path: Path,
    values: JsonObject,
    architecture: Architecture,
    config: ModelConfig,
    tensors: Mapping[str, StoredTensor],
) -> tuple[str, list[Row]]:
    """The prefix of the names, and the rows of the key table, of quantised tensors too."""
    rows = architecture.rows(config)
    prefixes = [p for p in architecture.prefixes if f"{p}{rows[0].key}" in tensors]
    prefix = prefixes[0] if prefixes else architecture.prefixes[0]
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return prefix, packed_rows(path, values, rows, bare)


def _check_names(
    path: Path,
    tensors: Mapping[str, object],
    rows: list[Row],
    architecture: Architecture,
    prefix: str,
) -> None:
    """Refuses names that are missing or unknown.

    Raises:
      UserError: names them.
    """
    wanted = {prefix + row.key for row in rows}
    optional = {prefix + row.key for row in rows if row.repeats}
    missing = sorted(wanted - optional - tensors.keys())
    ignored = re.compile(architecture.ignored)
    extra = sorted(key for key in tensors.keys() - wanted if not ignored.fullmatch(key))
    if lone := [key for key in extra if "prefix_encoder." in key]:
        raise UserError(
            f"the weights in {str(path)!r} hold a trained prefix ({some(lone)}), of which "
            "config.json says nothing: pre_seq_len is missing there"
        )
    if missing and all("prefix_encoder." in key for key in missing):
        raise UserError(
            f"config.json in {str(path)!r} has pre_seq_len, but its weights lack {some(missing)}: "
            "take it out there, and give the directory of the prefix as adapter"
        )
    if missing or extra:
        raise UserError(
            f"the weights in {str(path)!r} do not fit {architecture.name} with its config.json: "
            f"missing {some(missing)}; unknown {some(extra)}"
        )


@functools.cache
def _warn_once(text: str) -> None:
    _LOG.warning("%s", text)


def _check_tensors(
    path: Path, tensors: Mapping[str, StoredTensor], rows: list[Row], prefix: str
) -> None:
    for row in rows:
        key = prefix + row.key
        tensor = tensors[key]
        if row.dtype is None and tensor.dtype == np.int8:
            raise UserError(
                f"{key} in {str(path)!r} is quantised, int8, and has no scale beside it ({key}"
                f"{SCALE})"
            )
        if tensor.dtype is None or (row.dtype not in (None, tensor.dtype)):
            wanted = row.dtype or "float32, float16 or bfloat16"
            raise UserError(f"{key} in {str(path)!r} must be {wanted}; got {tensor.code}")
        if tensor.shape != row.shape:
            raise UserError(
                f"{key} in {str(path)!r} has shape {tensor.shape}; its config.json asks for "
                f"{row.shape}"
            )
