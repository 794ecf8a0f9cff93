"""GLM (2021), arXiv:2103.10360: the names and config keys of THUDM/GLM (4f61ed7)."""

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import (
    Architecture,
    Values,
    check_sayable,
    flag,
    number,
    whole,
)
from glm_jax.interop.architectures.rows import Row, layer_of_two_norms, linear, norm, same

_NAME = "GLM (2021)"
_SIZES = (
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "max_sequence_length",
)


def _read(values: Values) -> ModelConfig:
    if flag(values, "relative_encoding", False):
        raise UserError("relative_encoding=true (Transformer-XL positions) is not supported")
    sizes = {key: whole(values, key) for key in _SIZES}
    blocks = flag(values, "block_position_encoding", True)
    # attention_scale is a guard against fp16 overflow that changes no result.
    return ModelConfig(
        vocab_size=sizes["vocab_size"],
        num_layers=sizes["num_layers"],
        embed_dim=sizes["hidden_size"],
        num_heads=sizes["num_attention_heads"],
        max_positions=sizes["max_sequence_length"],
        position_encoding="learned_block" if blocks else "learned",
        dropout_rate=number(values, "output_dropout_prob", 0.1),
        attention_dropout_rate=number(values, "attention_dropout_prob", 0.1),
        initializer_range=number(values, "initializer_range", 0.02),
    )


def _write(config: ModelConfig) -> dict[str, object]:
    allowed = {
        "position_encoding": ("learned_block", "learned"),
        "residual": ("pre_norm",),
        "norm": ("layer_norm",),
        "activation": ("gelu",),
        "biases": ("all",),
        "tied_embeddings": (True,),
        "num_kv_heads": (config.num_heads,),
        "head_dim": (config.embed_dim // config.num_heads,),
        "mlp_dim": (4 * config.embed_dim,),
        "norm_epsilon": (1e-5,),
    }
    check_sayable(_NAME, config, allowed)
    return {
        "num_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "vocab_size": config.vocab_size,
        "max_sequence_length": config.max_positions,
        "block_position_encoding": config.uses_block_positions,
        "embedding_dropout_prob": config.dropout_rate,
        "output_dropout_prob": config.dropout_rate,
        "attention_dropout_prob": config.attention_dropout_rate,
        "initializer_range": config.initializer_range,
        "relative_encoding": False,
    }


def _rows(config: ModelConfig) -> list[Row]:
    config = config.resolved()
    width, mlp_dim = config.embed_dim, config.mlp_dim
    heads = (config.num_heads, config.head_dim)
    positions = (config.table_rows, width)
    rows = [
        same("word_embeddings.weight", "embedding/table", (config.vocab_size, width)),
        same("transformer.position_embeddings.weight", "positions/table", positions),
    ]
    if config.uses_block_positions:
        key = "transformer.block_position_embeddings.weight"
        rows.append(same(key, "positions/block_table", positions))
    for index in range(config.num_layers):
        key, path = f"transformer.layers.{index}.", f"layers/{index}/"
        fused = [f"{path}attention/{name}" for name in ("query", "key", "value")]
        qkv = linear(f"{key}attention.query_key_value", fused, (width,), [heads] * 3, bias=True)
        rows += layer_of_two_norms(key, path, qkv, width, heads, mlp_dim)
    return rows + norm("transformer.final_layernorm", "final_norm", width, bias=True)


GLM = Architecture(
    name=_NAME,
    names="original",
    config_keys=frozenset({*_SIZES, "block_position_encoding"}),
    own_keys=frozenset(),
    identity={},
    prefixes=("", "glm."),
    marker="transformer.position_embeddings",
    ignored="",
    read_config=_read,
    write_config=_write,
    rows=_rows,
)
