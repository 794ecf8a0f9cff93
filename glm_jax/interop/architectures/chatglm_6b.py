"""ChatGLM-6B, the first generation, under the names of its own code (THUDM/ChatGLM-6B, 401bf3a).

Its rotation pairs feature j of half a head with feature j + H / 4, ours neighbours. The rows of
queries and keys are therefore put in another order, which changes no result:

    half a head, H = 16    theirs  0 1 2 3 4 5 6 7     pairs (0 4) (1 5) (2 6) (3 7)
                           ours    0 4 1 5 2 6 3 7

`residual_alpha_layers` and `rotary_dtype` are keys of this package. Without them config.json means
what the published code computes for the published model: alpha of its number of layers, and angles
rounded to float16.
"""

from glm_jax.config.model import ModelConfig
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
from glm_jax.interop.architectures.rows import Row, fused_by_head, layer_of_two_norms, norm, same
from glm_jax.json_files import JsonObject

_NAME = "ChatGLM-6B"
_SIZES = (
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "vocab_size",
    "inner_hidden_size",
    "max_sequence_length",
)
# What no released model has, or what is not read, and the values that are.
_FIXED = {
    "position_encoding_2d": (True, None),
    "rotary_dtype": ("float16", "float32", None),
}


def _read(values: Values) -> ModelConfig:
    check_fixed(values, _FIXED)
    sizes = {key: whole(values, key) for key in _SIZES}
    alpha = values.get("residual_alpha_layers")
    model = ModelConfig(
        vocab_size=sizes["vocab_size"],
        num_layers=sizes["num_layers"],
        embed_dim=sizes["hidden_size"],
        num_heads=sizes["num_attention_heads"],
        mlp_dim=sizes["inner_hidden_size"],
        norm_epsilon=number(values, "layernorm_epsilon", 1e-5),
        residual="scaled_norm",
        residual_alpha_layers=None if alpha is None else whole(values, "residual_alpha_layers"),
        tied_embeddings=flag(values, "tie_word_embeddings", True),
        max_positions=sizes["max_sequence_length"],
        position_encoding="rotary_block",
        rotary_fraction=1.0,
        rotary_dtype="float32" if values.get("rotary_dtype") == "float32" else "float16",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
    )
    return read_prefix(values, model)


def _write(config: ModelConfig) -> JsonObject:
    allowed = {
        "position_encoding": ("rotary_block",),
        "residual": ("scaled_norm",),
        "norm": ("layer_norm",),
        "activation": ("gelu",),
        "biases": ("all",),
        "num_kv_heads": (config.num_heads,),
        "head_dim": (config.embed_dim // config.num_heads,),
        "rotary_fraction": (1.0,),
        "rotary_base": (10000.0,),
        "rotary_scaling": ("none",),
        "prefix_length": (config.prefix_length,),
    }
    check_sayable(_NAME, config, allowed)
    config = config.resolved()
    values: JsonObject = {
        "num_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "vocab_size": config.vocab_size,
        "inner_hidden_size": config.mlp_dim,
        "max_sequence_length": config.max_positions,
        "layernorm_epsilon": config.norm_epsilon,
        "position_encoding_2d": True,
        **write_prefix(_NAME, config),
    }
    if config.residual_alpha_layers is not None:
        values["residual_alpha_layers"] = config.residual_alpha_layers
    if config.rotary_dtype != "float16":
        values["rotary_dtype"] = config.rotary_dtype
    return values if config.tied_embeddings else {**values, "tie_word_embeddings": False}


def _blanks(values: Values) -> tuple[tuple[int, ...], int] | None:
    """[MASK] and [gMASK], and sop. Early files name sop alone; the ids stood in this order:

    [MASK] [gMASK] [sMASK] <unused_0> sop eop      130000 .. 130005, or 150000 .. 150005
    """
    if values.get("bos_token_id") is None:
        return None
    start = whole(values, "bos_token_id")
    masks = whole(values, "mask_token_id", start - 4), whole(values, "gmask_token_id", start - 3)
    return masks, start


def feature_order(head_dim: int) -> list[int]:
    """[H]: our feature i of a query or key is feature order[i] of the published code."""
    half, pairs = head_dim // 2, head_dim // 4
    return [
        start + side * pairs + pair
        for start in (0, half)
        for pair in range(pairs)
        for side in (0, 1)
    ]


def _rows(config: ModelConfig) -> list[Row]:
    config = config.resolved()
    width, mlp_dim = config.embed_dim, config.mlp_dim
    heads, order = (config.num_heads, config.head_dim), feature_order(config.head_dim)
    table = (config.vocab_size, width)
    rows = [same("transformer.word_embeddings.weight", "embedding/table", table)]
    for index in range(config.num_layers):
        key, path = f"transformer.layers.{index}.", f"layers/{index}/"
        fused = [f"{path}attention/{name}" for name in ("query", "key", "value")]
        qkv = fused_by_head(f"{key}attention.query_key_value", fused, width, heads, order)
        rows += layer_of_two_norms(key, path, qkv, width, heads, mlp_dim)
    rows += norm("transformer.final_layernorm", "final_norm", width, bias=True)
    tied = config.tied_embeddings
    output = "embedding/table" if tied else "output/table"
    rows += encoder_rows(config, order)
    return [*rows, same("lm_head.weight", output, table, repeats=tied)]


CHATGLM_6B = Architecture(
    name=_NAME,
    names="original",
    config_keys=frozenset(_SIZES),
    own_keys=frozenset(
        {
            *_FIXED,
            *PREFIX_KEYS,
            "auto_map",
            "gmask_token_id",
            "layernorm_epsilon",
            "mask_token_id",
            "residual_alpha_layers",
            "tie_word_embeddings",
        }
    ),
    identity={"architectures": ["ChatGLMModel"], "model_type": "chatglm"},
    prefixes=("",),
    marker="transformer.layers.",
    ignored=r"transformer\.layers\.\d+\.attention\.rotary_emb\.inv_freq",
    read_config=_read,
    write_config=_write,
    rows=_rows,
    # The published files have the LM head beside the token embedding that it is tied to.
    writes_repeats=True,
    ties_equal=True,
    blanks=_blanks,
    tokenizers=("chatglm",),
)
