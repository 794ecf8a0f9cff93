"""GLM-4-9B and GLM-4-0414 under the names of transformers: `GlmForCausalLM`, `Glm4ForCausalLM`.

Both have the same config keys; tensors called `post_self_attn_layernorm` are those of GLM-4-0414.
transformers 5 keeps the rotary settings in `rope_parameters`, versions before it in `rope_theta`,
`partial_rotary_factor` and `rope_scaling`; both forms are read and written.
"""

import functools
import math

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import (
    Architecture,
    Values,
    check_fixed,
    check_sayable,
    flag,
    number,
    whole,
)
from glm_jax.interop.architectures.rows import Row, linear, norm, same
from glm_jax.json_files import JsonObject, shown

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_ROTARY = ("rope_theta", "partial_rotary_factor")
# The further keys that each rope_type may have; other types are refused.
_ROPE_KEYS: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "yarn": {
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "truncate",
    },
}


def _read(residual: str, values: Values) -> ModelConfig:
    check_fixed(values, {"hidden_act": ("silu", "swish")})
    sizes = {key: whole(values, key) for key in _SIZES}
    heads = sizes["num_attention_heads"]
    return ModelConfig(
        vocab_size=sizes["vocab_size"],
        num_layers=sizes["num_hidden_layers"],
        embed_dim=sizes["hidden_size"],
        num_heads=heads,
        num_kv_heads=whole(values, "num_key_value_heads", heads),
        head_dim=whole(values, "head_dim", sizes["hidden_size"] // max(heads, 1)),
        mlp_dim=sizes["intermediate_size"],
        activation="swiglu",
        norm="rms_norm",
        norm_epsilon=number(values, "rms_norm_eps", 1.5625e-7),
        residual=residual,
        biases="qkv" if flag(values, "attention_bias", True) else "none",
        tied_embeddings=flag(values, "tie_word_embeddings", False),
        max_positions=sizes["max_position_embeddings"],
        position_encoding="rotary",
        **_read_rotary(values),
        # Not a key of transformers; this package writes it if it is not 0.
        dropout_rate=number(values, "hidden_dropout", 0.0),
        attention_dropout_rate=number(values, "attention_dropout", 0.0),
        initializer_range=number(values, "initializer_range", 0.02),
    )


def _rope_parameters(values: Values) -> dict[str, object]:
    """The rotary settings in one dict, in the order of precedence that transformers has."""
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise UserError(
            f"rope_parameters in config.json must be one flat object; got {shown(rope)}"
        )
    flat = {key: values[key] for key in _ROTARY if values.get(key) is not None}
    rope = {**flat, **{key: value for key, value in rope.items() if value is not None}}
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.pop("type", None)
    return rope


def _read_rotary(values: Values) -> JsonObject:
    rope = _rope_parameters(values)
    kind = rope.pop("rope_type")
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise UserError(
            f"rope_type={shown(kind)} in config.json is not supported; it may be "
            f"{', '.join(map(repr, _ROPE_KEYS))}"
        )
    unknown = sorted(rope.keys() - _ROPE_KEYS[kind] - set(_ROTARY))
    if unknown:
        raise UserError(f"{', '.join(unknown)} of rope_type={kind!r} in config.json: not supported")
    fields: JsonObject = {
        "rotary_base": number(rope, "rope_theta", 10000.0),
        "rotary_fraction": number(rope, "partial_rotary_factor", 0.5),
    }
    if kind == "default":
        return fields
    longest = whole(values, "max_position_embeddings")
    original = whole(rope, "original_max_position_embeddings", longest)
    factor = number(rope, "factor", longest / original if kind == "yarn" else 1.0)
    fields |= {"rotary_scaling": kind, "rotary_factor": factor}
    if kind == "yarn":
        _check_yarn(rope, factor)
        fields["rotary_original_positions"] = original
    return fields


def _check_yarn(rope: JsonObject, factor: float) -> None:
    """Refuses options of YaRN with other values than in its article (arXiv:2309.00071)."""
    check_fixed(rope, {"beta_fast": (32,), "beta_slow": (1,), "truncate": (True,)})
    expected = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    given = number(rope, "attention_factor", expected)
    if not math.isclose(given, expected, rel_tol=1e-6):
        raise UserError(
            f"attention_factor={given} in config.json is not supported; it may be missing or "
            f"0.1 ln(factor) + 1 = {expected}"
        )


def _write(name: str, residual: str, config: ModelConfig) -> JsonObject:
    allowed = {
        "position_encoding": ("rotary",),
        "residual": (residual,),
        "norm": ("rms_norm",),
        "activation": ("swiglu",),
        "biases": ("qkv", "none"),
    }
    check_sayable(name, config, allowed)
    config = config.resolved()
    values = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": config.biases == "qkv",
        "attention_dropout": config.attention_dropout_rate,
        "max_position_embeddings": config.max_positions,
        "initializer_range": config.initializer_range,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        **_write_rotary(config),
    }
    return {**values, "hidden_dropout": config.dropout_rate} if config.dropout_rate else values


def _write_rotary(config: ModelConfig) -> JsonObject:
    kind = config.rotary_scaling if config.rotary_scaling in ("linear", "yarn") else "default"
    scale = config.rotary_factor if config.rotary_scaling == "base" else 1.0
    flat = {
        "rope_theta": config.rotary_base * scale,
        "partial_rotary_factor": config.rotary_fraction,
    }
    scaling: dict[str, object] = {"rope_type": kind}
    if kind != "default":
        scaling["factor"] = config.rotary_factor
    if kind == "yarn":
        original = config.rotary_original_positions
        original = original or round(config.max_positions / config.rotary_factor)
        scaling["original_max_position_embeddings"] = original
    values = {**flat, "rope_parameters": {**scaling, **flat}}
    return values if kind == "default" else {**values, "rope_scaling": scaling}


def _rows(sandwich: bool, config: ModelConfig) -> list[Row]:
    config = config.resolved()
    width, mlp_dim = config.embed_dim, config.mlp_dim
    heads = (config.num_heads, config.head_dim)
    groups = (config.num_kv_heads, config.head_dim)
    bias = config.biases == "qkv"
    table = (config.vocab_size, width)
    rows = [same("model.embed_tokens.weight", "embedding/table", table)]
    # post_attention_layernorm is the norm before the MLP in both, whatever its name says.
    norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    if sandwich:
        norms["post_self_attn_layernorm"] = "attention_out_norm"
        norms["post_mlp_layernorm"] = "mlp_out_norm"
    for index in range(config.num_layers):
        key, path = f"model.layers.{index}.", f"layers/{index}/"
        for theirs, ours in norms.items():
            rows += norm(f"{key}{theirs}", f"{path}{ours}", width, bias=False)
        for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
            output = [heads if letter == "q" else groups]
            paths = [f"{path}attention/{name}"]
            rows += linear(f"{key}self_attn.{letter}_proj", paths, (width,), output, bias)
        out = [f"{path}attention/out"]
        up, down = [f"{path}mlp/gate", f"{path}mlp/up"], [f"{path}mlp/down"]
        rows += linear(f"{key}self_attn.o_proj", out, heads, [(width,)], False)
        rows += linear(f"{key}mlp.gate_up_proj", up, (width,), [(mlp_dim,)] * 2, False)
        rows += linear(f"{key}mlp.down_proj", down, (mlp_dim,), [(width,)], False)
    rows += norm("model.norm", "final_norm", width, bias=False)
    tied = config.tied_embeddings
    output_path = "embedding/table" if tied else "output/table"
    return [*rows, same("lm_head.weight", output_path, table, repeats=tied)]


def _is_glm(values: Values) -> bool:
    """Whether it is GLM's; Llama has the same keys, another model_type, and rotates whole heads."""
    return values.get("model_type") in (
        None,
        "glm",
        "glm4",
    ) or "partial_rotary_factor" in _rope_parameters(values)


def _native(
    name: str, model_type: str, class_name: str, residual: str, marker: str
) -> Architecture:
    return Architecture(
        name=name,
        names="native",
        config_keys=frozenset({*_SIZES, "rms_norm_eps", "num_key_value_heads"}),
        own_keys=frozenset(
            {
                *_ROTARY,
                "attention_bias",
                "attention_dropout",
                "head_dim",
                "hidden_act",
                "hidden_dropout",
                "initializer_range",
                "rope_parameters",
                "rope_scaling",
                "tie_word_embeddings",
            }
        ),
        # Without pad_token_id transformers uses a default, which a small vocabulary may not have.
        identity={"architectures": [class_name], "model_type": model_type, "pad_token_id": None},
        prefixes=("",),
        marker=marker,
        ignored=r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
        read_config=functools.partial(_read, residual),
        write_config=functools.partial(_write, name, residual),
        rows=functools.partial(_rows, residual == "sandwich"),
        requires=_is_glm,
    )


GLM4 = _native("GLM-4-9B (native names)", "glm", "GlmForCausalLM", "pre_norm", "gate_up_proj")
GLM4_0414 = _native("GLM-4-0414", "glm4", "Glm4ForCausalLM", "sandwich", "post_self_attn_layernorm")
