"""ChatGLM2-6B, ChatGLM3-6B, CodeGeeX2-6B and GLM-4-9B under the names of their own code.

`rope_ratio` means two things in published files: ChatGLM3-32k and GLM-4 multiply the base by it,
ChatGLM2-32k divides positions by it. The key `rope_mode` ("base" or "linear"), which this package
writes, decides. Without it, a `_name_or_path` of ChatGLM2 means "linear" and any other "base"; the
user is warned if no known name confirms that.
"""

import re

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import (
    PREFIX_KEYS,
    Architecture,
    Values,
    check_fixed,
    check_sayable,
    flag,
    number,
    read_prefix,
    whole,
    write_prefix,
)
from glm_jax.interop.architectures.prefix_encoder import encoder_rows
from glm_jax.interop.architectures.rows import Row, linear, norm, same
from glm_jax.json_files import JsonObject

_NAME = "ChatGLM2/3 and GLM-4-9B (original names)"
_BASE = 10000.0
_GLM4 = 151552  # padded_vocab_size of all GLM-4-9B
_SIZES = (
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "padded_vocab_size",
    "ffn_hidden_size",
    "kv_channels",
    "seq_length",
)
# Switches of the published code that no released model uses, and their supported values.
_FIXED = {
    "post_layer_norm": (True, None),
    "apply_residual_connection_post_layernorm": (False, None),
    "original_rope": (True, None),
    "rope_mode": ("base", "linear", None),
}


def _read(values: Values) -> ModelConfig:
    check_fixed(values, _FIXED)
    sizes = {key: whole(values, key) for key in _SIZES}
    heads = sizes["num_attention_heads"]
    groups = whole(values, "multi_query_group_num", 1)
    biases = "qkv" if flag(values, "add_qkv_bias", False) else "none"
    ratio = number(values, "rope_ratio", 1.0)
    model = ModelConfig(
        vocab_size=sizes["padded_vocab_size"],
        num_layers=sizes["num_layers"],
        embed_dim=sizes["hidden_size"],
        num_heads=heads,
        num_kv_heads=groups if flag(values, "multi_query_attention", False) else heads,
        head_dim=sizes["kv_channels"],
        mlp_dim=sizes["ffn_hidden_size"],
        activation="swiglu",
        norm="rms_norm" if flag(values, "rmsnorm", True) else "layer_norm",
        norm_epsilon=number(values, "layernorm_epsilon", 1e-5),
        biases="all" if flag(values, "add_bias_linear", False) else biases,
        tied_embeddings=flag(values, "tie_word_embeddings", False),
        max_positions=sizes["seq_length"],
        position_encoding="rotary",
        rotary_base=_BASE,
        rotary_scaling="none" if ratio == 1 else _rope_mode(values),
        rotary_factor=ratio,
        dropout_rate=number(values, "hidden_dropout", 0.0),
        attention_dropout_rate=number(values, "attention_dropout", 0.0),
        initializer_range=number(values, "initializer_range", 0.02),
    )
    return read_prefix(values, model)


def _rope_mode(values: Values) -> str:
    given = values.get("rope_mode")
    if given is not None:
        return str(given)
    return "linear" if _is_named(values, r"chatglm2") else "base"


def _is_named(values: Values, pattern: str) -> bool:
    return re.search(pattern, str(values.get("_name_or_path", "")), re.IGNORECASE) is not None


def _doubt(values: Values) -> str | None:
    """A warning if the meaning of `rope_ratio` had to be guessed, else None."""
    ratio = number(values, "rope_ratio", 1.0)
    if ratio == 1 or values.get("rope_mode") is not None:
        return None
    if _is_named(values, r"chatglm[23]|glm-?4|codegeex") or values["padded_vocab_size"] == _GLM4:
        return None
    return (
        f"rope_ratio={ratio:g} is read as a larger base, as ChatGLM3-32k and GLM-4 mean it; "
        'ChatGLM2-32k divides positions by it: add "rope_mode": "linear" to config.json for that, '
        'or "base" where this is right'
    )


def _write(config: ModelConfig) -> JsonObject:
    allowed = {
        "position_encoding": ("rotary",),
        "residual": ("pre_norm",),
        "activation": ("swiglu",),
        "rotary_fraction": (0.5,),
        "rotary_scaling": ("none", "base", "linear"),
        "prefix_length": (config.prefix_length,),
    }
    check_sayable(_NAME, config, allowed)
    config = config.resolved()
    mode, ratio = _ratio(config)
    values = {
        "num_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "padded_vocab_size": config.vocab_size,
        "ffn_hidden_size": config.mlp_dim,
        "kv_channels": config.head_dim,
        "seq_length": config.max_positions,
        "multi_query_attention": config.num_kv_heads != config.num_heads,
        "multi_query_group_num": config.num_kv_heads,
        "layernorm_epsilon": config.norm_epsilon,
        "rmsnorm": config.norm == "rms_norm",
        "post_layer_norm": True,
        "apply_residual_connection_post_layernorm": False,
        "add_bias_linear": config.biases == "all",
        "add_qkv_bias": config.biases != "none",
        "original_rope": True,
        "rope_ratio": int(ratio) if ratio.is_integer() else ratio,
        "hidden_dropout": config.dropout_rate,
        "attention_dropout": config.attention_dropout_rate,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tied_embeddings,
        **write_prefix(_NAME, config),
    }
    return values if ratio == 1 else {**values, "rope_mode": mode}


def _ratio(config: ModelConfig) -> tuple[str, float]:
    """`rope_mode` and `rope_ratio`; the base is 10000 times the ratio, or just 10000."""
    scale = config.rotary_base / _BASE
    factor = 1.0 if config.rotary_scaling == "none" else config.rotary_factor
    if config.rotary_scaling != "linear" or factor == 1:
        return "base", scale * factor
    if scale != 1:
        raise UserError(
            f"the {_NAME} format has model.rotary_base={_BASE} beside rotary_scaling='linear'; "
            f"this model has {config.rotary_base}"
        )
    return "linear", factor


def _rows(config: ModelConfig) -> list[Row]:
    config = config.resolved()
    width, mlp_dim = config.embed_dim, config.mlp_dim
    heads = (config.num_heads, config.head_dim)
    groups = (config.num_kv_heads, config.head_dim)
    full, norm_bias = config.biases == "all", config.norm == "layer_norm"
    table = (config.vocab_size, width)
    rows = [same("transformer.embedding.word_embeddings.weight", "embedding/table", table)]
    for index in range(config.num_layers):
        key, path = f"transformer.encoder.layers.{index}.", f"layers/{index}/"
        fused = [f"{path}attention/{name}" for name in ("query", "key", "value")]
        outputs = [heads, groups, groups]
        qkv_bias = config.biases != "none"
        out = [f"{path}attention/out"]
        up, down = [f"{path}mlp/gate", f"{path}mlp/up"], [f"{path}mlp/down"]
        rows += [
            *norm(f"{key}input_layernorm", f"{path}attention_norm", width, norm_bias),
            *linear(f"{key}self_attention.query_key_value", fused, (width,), outputs, qkv_bias),
            *linear(f"{key}self_attention.dense", out, heads, [(width,)], full),
            *norm(f"{key}post_attention_layernorm", f"{path}mlp_norm", width, norm_bias),
            *linear(f"{key}mlp.dense_h_to_4h", up, (width,), [(mlp_dim,)] * 2, full),
            *linear(f"{key}mlp.dense_4h_to_h", down, (mlp_dim,), [(width,)], full),
        ]
    rows += norm("transformer.encoder.final_layernorm", "final_norm", width, norm_bias)
    tied = config.tied_embeddings
    output = "embedding/table" if tied else "output/table"
    rows += encoder_rows(config, range(config.head_dim))
    return [*rows, same("transformer.output_layer.weight", output, table, repeats=tied)]


CHATGLM = Architecture(
    name=_NAME,
    names="original",
    config_keys=frozenset(_SIZES),
    own_keys=frozenset(
        {
            *_FIXED,
            *PREFIX_KEYS,
            "add_bias_linear",
            "add_qkv_bias",
            "apply_query_key_layer_scaling",
            "attention_dropout",
            "attention_softmax_in_fp32",
            "auto_map",
            "bias_dropout_fusion",
            "classifier_dropout",
            "fp32_residual_connection",
            "hidden_dropout",
            "initializer_range",
            "layernorm_epsilon",
            "multi_query_attention",
            "multi_query_group_num",
            "num_hidden_layers",
            "rmsnorm",
            "rope_ratio",
            "tie_word_embeddings",
            "vocab_size",
        }
    ),
    identity={"architectures": ["ChatGLMModel"], "model_type": "chatglm"},
    prefixes=("",),
    marker="encoder.layers.",
    ignored=r"transformer\.rotary_pos_emb\.inv_freq",
    read_config=_read,
    write_config=_write,
    rows=_rows,
    # The published code has a separate LM head, whatever config.json says.
    writes_repeats=True,
    doubt=_doubt,
    tokenizers=("chatglm2", "chatglm3", "glm4", "glm4_0414"),
)
