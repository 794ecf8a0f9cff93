"""Plans a Hugging Face directory before it is written: files, tensor names and config.json."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.arrays import AbstractArray
from glm_jax.config.model import ModelConfig
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.companions import COMPANIONS, Companions
from glm_jax.interop.key_tables import for_saving
from glm_jax.interop.origin import CONFIG, Origin
from glm_jax.interop.weights import INDEX, WEIGHTS
from glm_jax.json_files import JsonObject

MAX_SHARD_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class SaveAs:
    """How a directory names and divides the weights.

    Attributes:
      names: "as_loaded" (prefix included), "original" or "native".
      max_shard_bytes: weights beyond this size go into several files with an index.
    """

    names: str = "as_loaded"
    max_shard_bytes: int = MAX_SHARD_BYTES


AS_LOADED = SaveAs()


@dataclasses.dataclass(frozen=True)
class SavePlan:
    """What `save_directory` writes.

    Attributes:
      architecture: the architecture whose names are used.
      values: the content of config.json.
      prefix: in front of every tensor's name.
      shards: the rows of the key table in each file, by file name.
      dtypes: dtype of each tensor, by the key of its row.
      companions: the files that are copied along.
      num_bytes: of all tensors together.
    """

    architecture: Architecture
    values: dict[str, object]
    prefix: str
    shards: dict[str, list[Row]]
    dtypes: dict[str, np.dtype]
    companions: Companions
    num_bytes: int

    @property
    def files(self) -> list[str]:
        """The names of all files, except those of a tokenizer that is saved too."""
        index = [INDEX] if len(self.shards) > 1 else []
        return [*self.shards, *index, *(file.name for file in self.companions.files), CONFIG]


def plan_save(
    config: ModelConfig,
    leaves: Mapping[str, AbstractArray],
    origin: Origin,
    save_as: SaveAs = AS_LOADED,
) -> SavePlan:
    """Plans what `save_directory` writes.

    Args:
      config, origin, save_as: as of `save_directory`.
      leaves: path -> anything with a shape and a dtype; layers listed, not stacked.

    Raises:
      UserError: unknown names, or a config that the format cannot express.
    """
    architecture = for_saving(config, origin.architecture, save_as.names)
    rows = [
        row for row in architecture.rows(config) if architecture.writes_repeats or not row.repeats
    ]
    sizes = {row.key: sum(_num_bytes(leaves[name]) for name in row.paths) for row in rows}
    groups = _shards(rows, sizes, save_as.max_shard_bytes)
    files = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    as_loaded = architecture is origin.architecture and save_as.names == "as_loaded"
    return SavePlan(
        architecture=architecture,
        values=_config_values(config, architecture, origin),
        prefix=origin.prefix if as_loaded else architecture.prefixes[0],
        shards=dict(zip(files if len(groups) > 1 else [WEIGHTS], groups, strict=True)),
        dtypes={row.key: np.dtype(leaves[row.paths[0]].dtype) for row in rows},
        companions=Companions.of(origin.directory),
        num_bytes=sum(sizes.values()),
    )


def is_model(path: Path) -> bool:
    """Whether a directory holds only files that `save_directory` writes."""
    names = {file.name for file in path.iterdir()}
    ours = {name for name in names if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)}
    return CONFIG in names and not names - ours - {CONFIG, WEIGHTS, INDEX, *COMPANIONS}


def _num_bytes(leaf: AbstractArray) -> int:
    return int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize


def _shards(rows: list[Row], sizes: Mapping[str, int], limit: int) -> list[list[Row]]:
    """Groups of consecutive rows whose tensors fit in `limit` bytes, at least one row each."""
    shards: list[list[Row]] = []
    room = 0
    for row in rows:
        if not shards or sizes[row.key] > room:
            shards.append([])
            room = limit
        shards[-1].append(row)
        room -= sizes[row.key]
    return shards


def _config_values(config: ModelConfig, architecture: Architecture, origin: Origin) -> JsonObject:
    """The content of config.json; keys unknown to this package are kept as they were loaded."""
    values = dict(origin.values)
    old = origin.architecture
    if old is not None and old is not architecture:
        gone = old.config_keys | old.own_keys | {"architectures", "model_type"}
        values = {key: value for key, value in values.items() if key not in gone}
    values = {**architecture.identity, **values, **architecture.write_config(config)}
    # transformers 5 writes "dtype" and reads both.
    keys = [key for key in ("dtype", "torch_dtype") if key in values] or ["torch_dtype"]
    return {**values, **dict.fromkeys(keys, config.param_dtype)}
