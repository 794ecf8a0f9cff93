"""Plans a Hugging Face directory before it is written: files, tensor names and config.json."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.adapters.quantised import AnyQuantised, arrays_by_name, is_quantised, quantised_in
from glm_jax.arrays import AbstractArray
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.companions import COMPANIONS, Companions
from glm_jax.interop.key_tables import for_saving
from glm_jax.interop.origin import CONFIG, Origin
from glm_jax.interop.packed import KEYS, Packed, config_values
from glm_jax.interop.weights import INDEX, WEIGHTS
from glm_jax.json_files import JsonObject, some

Leaf = AbstractArray | AnyQuantised
MAX_SHARD_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class SaveAs:
    """How a directory names and divides the weights.

    Attributes:
      names: "as_loaded" (prefix included), "original" or "native".
      max_shard_bytes: weights beyond this size go into several files with an index.
      dequantize: write quantised matrices as plain ones.
    """

    names: str = "as_loaded"
    max_shard_bytes: int = MAX_SHARD_BYTES
    dequantize: bool = False


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
    leaves: Mapping[str, Leaf],
    origin: Origin,
    save_as: SaveAs = AS_LOADED,
) -> SavePlan:
    """Plans what `save_directory` writes.

    Args:
      config, origin, save_as: as of `save_directory`.
      leaves: path -> anything with a shape and a dtype, or a quantised matrix of such; layers
        listed, not stacked.

    Raises:
      UserError: unknown names, or a model that the format cannot express.
    """
    names = save_as.names
    if names == "as_loaded" and origin.architecture is None and any(quantised_in(dict(leaves))):
        names = "original"  # native ones cannot say it
    architecture = for_saving(config, origin.architecture, names)
    rows = [
        row for row in architecture.rows(config) if architecture.writes_repeats or not row.repeats
    ]
    packings = _packings(architecture, rows, leaves)
    rows = [one for row in rows for one in _rows_of(row, packings)]
    arrays = arrays_by_name(dict(leaves))
    dtypes = {row.key: row.dtype or np.dtype(arrays[row.paths[0]].dtype) for row in rows}
    sizes = {row.key: math.prod(row.shape) * dtypes[row.key].itemsize for row in rows}
    groups = _shards(rows, sizes, save_as.max_shard_bytes)
    files = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    as_loaded = architecture is origin.architecture and save_as.names == "as_loaded"
    about = config_values(list(packings.values()))
    return SavePlan(
        architecture=architecture,
        values={**_config_values(config, architecture, origin), **about},
        prefix=origin.prefix if as_loaded else architecture.prefixes[0],
        shards=dict(zip(files if len(groups) > 1 else [WEIGHTS], groups, strict=True)),
        dtypes=dtypes,
        companions=Companions.of(origin.directory),
        num_bytes=sum(sizes.values()),
    )


def _packings(
    architecture: Architecture, rows: list[Row], leaves: Mapping[str, Leaf]
) -> dict[str, Packed]:
    """How the quantised tensors are packed, by the key of their row.

    Raises:
      UserError: the names are those of transformers, which has no such format.
    """
    packings = {}
    for row in rows:
        nodes = [node for node in (leaves[path] for path in row.paths) if is_quantised(node)]
        if not nodes:
            continue
        bits, groups = ({getattr(node, name) for node in nodes} for name in ("bits", "num_groups"))
        if len(nodes) < len(row.paths) or len(bits) > 1 or len(groups) > 1:
            raise UserError(
                f"{row.key} is of {len(row.paths)} matrices that are not quantised alike, "
                f"{some(list(row.paths))}"
            )
        packings[row.key] = Packed(row, bits.pop(), groups.pop())
    if packings and architecture.names == "native":
        raise UserError(
            f"{architecture.name} cannot say quantised weights, transformers has no such format: "
            "save with dequantize (--dequantize of convert), with names='original' where the model "
            "has them, or with format='orbax'"
        )
    return packings


def _rows_of(row: Row, packings: Mapping[str, Packed]) -> list[Row]:
    """A row, or the two of its integers and scales."""
    packing = packings.get(row.key)
    return [row] if packing is None else [packing.values, packing.scale]


def is_model(path: Path) -> bool:
    """Whether a directory holds only files that `save_directory` writes."""
    names = {file.name for file in path.iterdir()}
    ours = {name for name in names if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)}
    return CONFIG in names and not names - ours - {CONFIG, WEIGHTS, INDEX, *COMPANIONS}


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
    gone = KEYS | {"quantization_config"}
    values = {key: value for key, value in origin.values.items() if key not in gone}
    old = origin.architecture
    if old is not None and old is not architecture:
        gone = old.config_keys | old.own_keys | {"architectures", "model_type"}
        values = {key: value for key, value in values.items() if key not in gone}
    values = {**architecture.identity, **values, **architecture.write_config(config)}
    # transformers 5 writes "dtype" and reads both.
    keys = [key for key in ("dtype", "torch_dtype") if key in values] or ["torch_dtype"]
    return {**values, **dict.fromkeys(keys, config.param_dtype)}
