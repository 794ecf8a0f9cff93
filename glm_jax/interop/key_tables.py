"""Published checkpoints: how each architecture is known, its config, and its names for parameters.

One table serves both directions. A row says which tensor of the checkpoint holds which parameters:

    transformer.layers.3.attention.query_key_value.weight [3 N H, D]
        <-> layers/3/attention/{query,key,value}/kernel    [D, N, H] each

A directory is known by the keys of its config.json, never by `model_type`: GLM (2021) and GLM-4
both call themselves "glm".
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.positions import table_rows


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a checkpoint.

    Attributes:
      key: its name, without prefix.
      shape: its shape there.
      paths: the parameters it holds.
      split: tensor -> those parameters, in order.
      join: the inverse.
    """

    key: str
    shape: tuple[int, ...]
    paths: tuple[str, ...]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    join: Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A family of checkpoints that share config keys and names.

    Attributes:
      name: for messages.
      config_keys: keys that its config.json has, and no other architecture has all of.
      prefixes: what may stand in front of every name; the first is that of the original files.
      read_config: config.json -> ModelConfig, without dtypes.
      write_config: the inverse; UserError where the format cannot say it.
      rows: its key table.
    """

    name: str
    config_keys: frozenset[str]
    prefixes: tuple[str, ...]
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    rows: Callable[[ModelConfig], list[Row]]


def find_architecture(values: Mapping[str, Any], source: str) -> Architecture:
    """The architecture whose config keys are all in `values`.

    Raises:
      UserError: none; names those there are and the keys each one misses.
    """
    for architecture in ARCHITECTURES:
        if architecture.config_keys <= values.keys():
            return architecture
    known = "; ".join(
        f"{a.name} needs {', '.join(sorted(a.config_keys))} "
        f"(missing: {', '.join(sorted(a.config_keys - values.keys()))})"
        for a in ARCHITECTURES
    )
    raise UserError(f"{source} is of no known architecture: {known}")


_GLM_SIZES = (
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "max_sequence_length",
)


def _read_glm(values: Mapping[str, Any]) -> ModelConfig:
    if values.get("relative_encoding"):
        raise UserError("relative_encoding=true (Transformer-XL positions) is not supported")
    for key in _GLM_SIZES:
        if type(values[key]) is not int:
            raise UserError(f"{key} in config.json must be a whole number; got {values[key]!r}")
    # attention_scale is a guard against fp16 overflow that changes no result.
    return ModelConfig(
        vocab_size=values["vocab_size"],
        num_layers=values["num_layers"],
        embed_dim=values["hidden_size"],
        num_heads=values["num_attention_heads"],
        max_positions=values["max_sequence_length"],
        position_encoding="learned_block" if values["block_position_encoding"] else "learned",
        dropout_rate=values.get("output_dropout_prob", 0.1),
        attention_dropout_rate=values.get("attention_dropout_prob", 0.1),
        initializer_range=values.get("initializer_range", 0.02),
    )


def _write_glm(config: ModelConfig) -> dict[str, Any]:
    fixed = {
        "head_dim": config.embed_dim // config.num_heads,
        "mlp_dim": 4 * config.embed_dim,
        "norm_epsilon": 1e-5,
    }
    for name, value in fixed.items():
        if getattr(config.resolved(), name) != value:
            raise UserError(
                f"the GLM (2021) format has model.{name}={value}; this model has "
                f"{getattr(config.resolved(), name)}: save it with format='orbax'"
            )
    return {
        "num_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "vocab_size": config.vocab_size,
        "max_sequence_length": config.max_positions,
        "block_position_encoding": config.position_encoding == "learned_block",
        "embedding_dropout_prob": config.dropout_rate,
        "output_dropout_prob": config.dropout_rate,
        "attention_dropout_prob": config.attention_dropout_rate,
        "initializer_range": config.initializer_range,
        "relative_encoding": False,
    }


def _glm_rows(config: ModelConfig) -> list[Row]:
    """The names of THUDM/GLM (4f61ed7). Its linear weights are [out, in]."""
    config = config.resolved()
    width, heads, head_dim = config.embed_dim, config.num_heads, config.head_dim or 0
    mlp_dim, positions = config.mlp_dim or 0, (table_rows(config), width)
    rows = [
        _same("word_embeddings.weight", "embedding/table", (config.vocab_size, width)),
        _same("transformer.position_embeddings.weight", "positions/table", positions),
    ]
    if config.position_encoding == "learned_block":
        key = "transformer.block_position_embeddings.weight"
        rows.append(_same(key, "positions/block_table", positions))
    for index in range(config.num_layers):
        key, path = f"transformer.layers.{index}.", f"layers/{index}/"
        rows += [
            *_norm(f"{key}input_layernorm", f"{path}attention_norm", width),
            *_query_key_value(f"{key}attention.query_key_value", f"{path}attention", config),
            _linear(
                f"{key}attention.dense.weight", f"{path}attention/out", (heads, head_dim), width
            ),
            _same(f"{key}attention.dense.bias", f"{path}attention/out/bias", (width,)),
            *_norm(f"{key}post_attention_layernorm", f"{path}mlp_norm", width),
            _linear(f"{key}mlp.dense_h_to_4h.weight", f"{path}mlp/up", (width,), mlp_dim),
            _same(f"{key}mlp.dense_h_to_4h.bias", f"{path}mlp/up/bias", (mlp_dim,)),
            _linear(f"{key}mlp.dense_4h_to_h.weight", f"{path}mlp/down", (mlp_dim,), width),
            _same(f"{key}mlp.dense_4h_to_h.bias", f"{path}mlp/down/bias", (width,)),
        ]
    return rows + _norm("transformer.final_layernorm", "final_norm", width)


def _same(key: str, path: str, shape: tuple[int, ...]) -> Row:
    return Row(key, shape, (path,), split=lambda x: (x,), join=lambda x: x)


def _norm(key: str, path: str, width: int) -> list[Row]:
    return [
        _same(f"{key}.weight", f"{path}/scale", (width,)),
        _same(f"{key}.bias", f"{path}/bias", (width,)),
    ]


def _linear(key: str, path: str, inputs: tuple[int, ...], outputs: int) -> Row:
    """[out, in] there, [*inputs, out] here."""
    size = int(np.prod(inputs))
    return Row(
        key,
        (outputs, size),
        (f"{path}/kernel",),
        split=lambda x: (x.T.reshape(*inputs, outputs),),
        join=lambda x: x.reshape(size, outputs).T,
    )


def _query_key_value(key: str, path: str, config: ModelConfig) -> list[Row]:
    """One tensor [q; k; v] there, each cut into heads in order; three parameters here."""
    width, heads, head_dim = config.embed_dim, config.num_heads, config.head_dim or 0
    size = heads * head_dim
    names = [f"{path}/{name}" for name in ("query", "key", "value")]
    return [
        Row(
            f"{key}.weight",
            (3 * size, width),
            tuple(f"{name}/kernel" for name in names),
            split=lambda x: tuple(p.T.reshape(width, heads, head_dim) for p in np.split(x, 3)),
            join=lambda *parts: np.concatenate([p.reshape(width, size).T for p in parts]),
        ),
        Row(
            f"{key}.bias",
            (3 * size,),
            tuple(f"{name}/bias" for name in names),
            split=lambda x: tuple(x.reshape(3, heads, head_dim)),
            join=lambda *parts: np.concatenate([p.reshape(size) for p in parts]),
        ),
    ]


ARCHITECTURES = (
    Architecture(
        name="GLM (2021)",
        config_keys=frozenset({*_GLM_SIZES, "block_position_encoding"}),
        prefixes=("", "glm."),
        read_config=_read_glm,
        write_config=_write_glm,
        rows=_glm_rows,
    ),
)
