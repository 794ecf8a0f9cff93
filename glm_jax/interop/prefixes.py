"""Directories that hold a trained prefix without its model: read, and written.

P-Tuning, as the code of ChatGLM writes it      config.json with pre_seq_len, pytorch_model.bin
    transformer.prefix_encoder.embedding.weight ..
PEFT, peft_type PREFIX_TUNING                   adapter_config.json, adapter_model.safetensors
    prompt_embeddings [P, 2 L K H]

PEFT keeps no encoder, but what it makes. transformers counts the positions of its tokens from P on,
behind the prefix; ChatGLM's code and this project count from 0. Scores depend on the distance of
rotated features alone, so that the same prefix has its keys turned back by P positions here.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.files import replaced_directory
from glm_jax.interop.architectures.architecture import PREFIX_KEYS, flag, whole, write_prefix
from glm_jax.interop.architectures.chatglm_6b import feature_order
from glm_jax.interop.architectures.prefix_encoder import (
    PEFT_TENSOR,
    PREFIX_ENCODER,
    encoder_rows,
    table_row,
)
from glm_jax.interop.architectures.rows import Row
from glm_jax.interop.finite import is_finite
from glm_jax.interop.key_tables import for_saving
from glm_jax.interop.lora_config import ADAPTER_CONFIG
from glm_jax.interop.origin import CONFIG, Origin
from glm_jax.interop.weights import (
    ADAPTER_WEIGHTS,
    WEIGHTS,
    StoredTensor,
    TensorToWrite,
    open_adapter,
    open_weights,
    write_safetensors,
)
from glm_jax.json_files import JsonObject, read_object, shown, some
from glm_jax.models.positions import rotary_frequencies

FORMATS = ("ptuning", "peft")
_PEFT_TYPE = "PREFIX_TUNING"
# In front of the names of an encoder's tensors.
_PREFIXES = (PREFIX_ENCODER, "prefix_encoder.", "")


@dataclasses.dataclass(frozen=True)
class StoredPrefix:
    """A prefix that was read.

    Attributes:
      config: the model with it.
      leaves: path -> float32 array, "prefix/table" or those of a projection.
    """

    config: ModelConfig
    leaves: Mapping[str, np.ndarray]


def read_prefix_directory(path: Path, config: ModelConfig, origin: Origin) -> StoredPrefix:
    """Reads a P-Tuning or PEFT directory.

    Args:
      path: of the directory.
      config: of the model that it is for, which has no prefix.
      origin: of the model.

    Raises:
      UserError: there is no such directory, it holds something else, is for a model of other
        sizes, or has values that are not finite.
    """
    if config.prefix_length:
        raise UserError(
            f"the model has a prefix of its own (model.prefix_length={config.prefix_length}), to "
            f"which that in {str(path)!r} cannot be added"
        )
    if not path.is_dir():
        raise UserError(f"no directory {str(path)!r}; give that of an adapter (P-Tuning or PEFT)")
    if (path / ADAPTER_CONFIG).is_file():
        return _read_peft(path, config, origin)
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{str(path)!r} holds no adapter: neither {ADAPTER_CONFIG} (PEFT) nor {CONFIG} with "
            "pre_seq_len (P-Tuning)"
        )
    return _read_ptuning(path, config)


def _read_ptuning(path: Path, config: ModelConfig) -> StoredPrefix:
    values, tensors = read_object(path / CONFIG), open_adapter(path) or open_weights(path)
    key = next((key for key in _PREFIXES if f"{key}embedding.weight" in tensors), None)
    if key is None:
        raise UserError(
            f"{str(path)!r} holds no prefix: its tensors are {some(sorted(tensors))}, not "
            f"{PREFIX_ENCODER}embedding.weight"
        )
    found = tensors[f"{key}embedding.weight"].shape
    if not values.get("pre_seq_len"):
        raise UserError(
            f"{str(path / CONFIG)!r} has no pre_seq_len, the length of the prefix; the encoder "
            f"there is {list(found)}"
        )
    hidden = tensors.get(f"{key}trans.0.weight")
    if flag(values, "prefix_projection", False) != (hidden is not None):
        raise UserError(
            f"prefix_projection is {shown(values.get('prefix_projection', False))} in "
            f"{str(path / CONFIG)!r}, but the encoder has {'a' if hidden else 'no'} projection "
            f"({key}trans.0.weight)"
        )
    is_matrix = len(found) == 2 and (hidden is None or len(hidden.shape) == 2)
    asked = ModelConfig(
        prefix_length=whole(values, "pre_seq_len"),
        prefix_projection=hidden.shape[0] if hidden and is_matrix else None,
        prefix_embed_dim=found[1] if hidden and is_matrix else None,
    )
    model = config.with_prefix(asked)
    return _read(path, model, tensors, encoder_rows(model, key_order(model), key))


def _read_peft(path: Path, config: ModelConfig, origin: Origin) -> StoredPrefix:
    values = read_object(path / ADAPTER_CONFIG)
    kind = values.get("peft_type")
    if kind != _PEFT_TYPE:
        raise UserError(
            f"{str(path)!r} is a PEFT adapter of type {shown(kind)}; of these only LORA and "
            f"{_PEFT_TYPE} are read"
        )
    if values.get("num_transformer_submodules") not in (None, 1):
        raise UserError(f"{str(path)!r} is for a model with an encoder and a decoder")
    tensors = open_adapter(path)
    if tensors is None:
        raise UserError(f"{str(path)!r} holds no {ADAPTER_WEIGHTS}")
    asked = ModelConfig(prefix_length=whole(values, "num_virtual_tokens"))
    model = config.with_prefix(asked)
    read = _read(path, model, tensors, [table_row(PEFT_TENSOR, model, key_order(model))])
    return dataclasses.replace(read, leaves=_moved(read.leaves, model, origin, -1))


def _read(
    path: Path, model: ModelConfig, tensors: Mapping[str, StoredTensor], rows: Sequence[Row]
) -> StoredPrefix:
    """The tensors of a key table, and no others."""
    keys = {row.key for row in rows}
    missing, others = sorted(keys - tensors.keys()), sorted(tensors.keys() - keys)
    if missing:
        raise UserError(f"{str(path)!r} lacks {some(missing)} of its prefix")
    if others:
        raise UserError(
            f"{str(path)!r} holds more than a prefix: {some(others)}; a directory with the whole "
            "model is loaded by itself"
        )
    leaves: dict[str, np.ndarray] = {}
    for row in rows:
        tensor = tensors[row.key]
        _check_shape(path, row, tensor, model)
        array = np.asarray(tensor.read(), np.float32)
        if not is_finite(array):
            raise UserError(f"NaN or infinite values in {row.key} of {str(path)!r}")
        for name, part in zip(row.paths, row.split(array), strict=True):
            leaves[name] = np.ascontiguousarray(part)
    return StoredPrefix(model, leaves)


def _check_shape(path: Path, row: Row, tensor: StoredTensor, model: ModelConfig) -> None:
    if tensor.dtype is None:
        raise UserError(f"{row.key} in {str(path)!r} is neither float32, float16 nor bfloat16")
    if tensor.shape != row.shape:
        sizes = model.resolved()
        raise UserError(
            f"{row.key} in {str(path)!r} is {list(tensor.shape)}; a prefix of "
            f"{model.prefix_length} for this model ({sizes.num_layers} layers, "
            f"{sizes.num_kv_heads} key heads of {sizes.head_dim}) has {list(row.shape)}"
        )


def key_order(config: ModelConfig) -> Sequence[int]:
    """[H]: our feature i of a key is feature order[i] of published files."""
    head_dim = config.resolved().head_dim
    turns_halves = config.uses_block_positions and not config.has_position_table
    return feature_order(head_dim) if turns_halves else range(head_dim)


def save_prefix(
    path: Path,
    format: str,
    config: ModelConfig,
    leaves: Mapping[str, np.ndarray],
    origin: Origin,
) -> None:
    """Writes the prefix of a model as a directory, all of it or nothing.

    Args:
      path: the directory; one that holds nothing but a prefix is replaced.
      format: "ptuning" or "peft".
      config, origin: of the model.
      leaves: path -> float32 array; for "peft" of the plain table.

    Raises:
      UserError: the model has no prefix, the format cannot express it, or `path` holds something
        else.
    """
    if not config.prefix_length:
        raise UserError(f"format={format!r} writes a model's prefix alone; this model has none")
    if format == "ptuning":
        about, weights, values = CONFIG, WEIGHTS, _ptuning_config(config, origin)
        rows = encoder_rows(config, key_order(config))
    else:
        about, weights, values = ADAPTER_CONFIG, ADAPTER_WEIGHTS, _peft_config(config, origin)
        rows = [table_row(PEFT_TENSOR, config, key_order(config))]
        leaves = _moved(leaves, config, origin, +1)

    def to_write(row: Row) -> TensorToWrite:
        def make() -> np.ndarray:
            return row.join(*(leaves[name] for name in row.paths))

        return TensorToWrite(row.key, row.shape, np.dtype(np.float32), make)

    with replaced_directory(path, _is_prefix) as directory:
        for _ in write_safetensors(directory / weights, map(to_write, rows)):
            pass
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (directory / about).write_text(text, encoding="utf-8")


def _is_prefix(path: Path) -> bool:
    """Whether a directory holds only files that `save_prefix` writes."""
    names = {file.name for file in path.iterdir()}
    if names == {CONFIG, WEIGHTS}:
        # So does a small model, which is not replaced by its prefix.
        return all(name.startswith(PREFIX_ENCODER) for name in open_weights(path))
    return names == {ADAPTER_CONFIG, ADAPTER_WEIGHTS}


def _ptuning_config(config: ModelConfig, origin: Origin) -> JsonObject:
    """As the published code has it: the config.json of the model, and two keys."""
    kept = {key: value for key, value in origin.values.items() if key not in PREFIX_KEYS}
    return {**kept, **write_prefix("P-Tuning", config)}


def _peft_config(config: ModelConfig, origin: Origin) -> JsonObject:
    sizes = config.resolved()
    width = sizes.num_kv_heads * sizes.head_dim
    base = origin.values.get("_name_or_path") or origin.directory
    return {
        "auto_mapping": None,
        "base_model_name_or_path": str(base or ""),
        "encoder_hidden_size": width,
        "inference_mode": True,
        "num_attention_heads": sizes.num_kv_heads,
        "num_layers": sizes.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": sizes.prefix_length,
        "peft_type": _PEFT_TYPE,
        "prefix_projection": False,
        "revision": None,
        "task_type": "CAUSAL_LM",
        "token_dim": width,
    }


def _moved(
    leaves: Mapping[str, np.ndarray], config: ModelConfig, origin: Origin, sign: int
) -> Mapping[str, np.ndarray]:
    """A plain table as transformers takes it (sign +1), or one of it as it is taken here (-1)."""
    if not _counts_from_prefix(config, origin):
        return leaves
    table = leaves["prefix/table"].copy()
    frequencies, _ = rotary_frequencies(config, table.shape[-1])
    pairs = table[:, 0, ..., : 2 * len(frequencies)]  # a view of the keys
    angles = sign * config.prefix_length * frequencies.astype(np.float64)
    turned = (pairs[..., ::2] + 1j * pairs[..., 1::2]) * np.exp(1j * angles)
    pairs[..., ::2], pairs[..., 1::2] = turned.real, turned.imag
    return {"prefix/table": table}


def _counts_from_prefix(config: ModelConfig, origin: Origin) -> bool:
    """Whether PEFT runs a model in transformers' own code, under whose names it is saved.

    ChatGLM's code counts the ids that it is given, under PEFT too.
    """
    bare = config.with_prefix(ModelConfig())
    try:
        return for_saving(bare, origin.architecture, "as_loaded").names == "native"
    except UserError:
        return False
