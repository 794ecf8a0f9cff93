"""The section `model` of a config: what the Transformer is. How it runs is `compute`.

ModelConfig(embed_dim=96, num_heads=6)                    head_dim None, mlp_dim None
ModelConfig(embed_dim=96, num_heads=6).resolved(compute)  head_dim 16, mlp_dim 384, compute
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from glm_jax.checks import check_choice, check_types, finite_number, whole_number
from glm_jax.config.compute import ComputeConfig
from glm_jax.config.moved import FROM_MODEL, accepts_old_names, moved_of, with_fields, with_moved
from glm_jax.errors import UserError

_MODEL_CHOICES = {
    "activation": ["gelu", "swiglu"],
    "norm": ["layer_norm", "rms_norm"],
    "residual": ["pre_norm", "sandwich", "scaled_norm"],
    "biases": ["all", "qkv", "none"],
    "position_encoding": ["learned_block", "learned", "rotary", "rotary_block"],
    "rotary_scaling": ["none", "base", "linear", "yarn"],
    "rotary_dtype": ["float32", "float16"],
    "param_dtype": ["float32", "bfloat16", "float16"],
}

# Larger sizes are a mistake or an attack: they would fill the memory before any other check.
# Ids and positions are int32.
_WIDEST = 2**24
_MOST = {
    "vocab_size": 2**31 - 1,
    "max_positions": 2**31 - 1,
    "rotary_original_positions": 2**31 - 1,
    "num_layers": 1_000,
    "residual_alpha_layers": 1_000,
}


DROPOUT_RATES = ("dropout_rate", "attention_dropout_rate", "prefix_dropout_rate")
# What says that a model has a prefix, and which.
PREFIX_FIELDS = ("prefix_length", "prefix_projection", "prefix_embed_dim", "prefix_dropout_rate")


@accepts_old_names
@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the Transformer (GLM, arXiv:2103.10360, section 2.2).

    The defaults are GLM (2021); `glm_jax.models.variants` has every published model.

    Attributes:
      vocab_size: V, rows of the token embedding.
      num_layers: L.
      embed_dim: D.
      num_heads: N; D must be a multiple of it unless head_dim is given.
      num_kv_heads: K, heads of keys and values; query head n uses key head n // (N / K). None:
        num_heads; 1 is multi-query attention (arXiv:1911.02150), a number in between grouped-query
        attention (arXiv:2305.13245).
      head_dim: H, dimension of a head; None: embed_dim / num_heads.
      mlp_dim: F, width of the feed-forward layer; None: 4 * embed_dim.
      activation: of the feed-forward layer: "gelu" (tanh form) or "swiglu", the product of
        silu(gate) and up (arXiv:2002.05202).
      norm: "layer_norm", or "rms_norm" (arXiv:1910.07467), which has no bias.
      norm_epsilon: of every norm.
      residual: how a sub-layer (attention, MLP) is added to its input: "pre_norm", x + f(norm(x));
        "sandwich", x + norm(f(norm(x))) (GLM-4-0414); "scaled_norm", alpha norm(x) + f(norm(x))
        with alpha = sqrt(2 L) (ChatGLM-6B).
      residual_alpha_layers: L in the alpha of "scaled_norm"; None: num_layers. ChatGLM-6B's code
        takes 28 whatever its number of layers.
      biases: which matrices have a bias: "all", "qkv" (queries, keys, values: ChatGLM2 and later)
        or "none". The LM head never has one.
      tied_embeddings: the token embedding is also the LM head.
      max_positions: P, the longest text in tokens. "learned_block" has two tables of P + 1 rows, as
        in the published checkpoints, and "learned" one table of P rows. Rotation has no table; P is
        the length at which generation stops.
      position_encoding: "learned_block" (two tables, GLM), "learned" (one table, GPT), "rotary"
        (arXiv:2104.09864; adjacent features form a pair) or "rotary_block" (the first half of each
        head is rotated by positions, the second by block positions, as in ChatGLM-6B). Models with
        block positions fill blanks.
      rotary_fraction: share of each head's features, from the first on, that is rotated, with
        "rotary_block" of each half's; their number R must be even.
      rotary_base: b; pair j of the R rotated features turns by position * b^(-2j / R).
      rotary_scaling: how the context was extended: "none"; "base", b times the factor
        (ChatGLM3-32k, GLM-4); "linear", positions divided by it (ChatGLM2-32k, arXiv:2306.15595);
        "yarn" (GLM-4-0414, arXiv:2309.00071).
      rotary_factor: the factor of `rotary_scaling`.
      rotary_original_positions: the context before "yarn"; None: max_positions / rotary_factor.
      rotary_dtype: to which the angles per position are rounded; "float16" as in ChatGLM-6B's code,
        where it turns a token at position 2048 by up to 0.05 radians more or less.
      initializer_range: standard deviation of the initial weights; matrices that write into the
        residual stream get it divided by sqrt(2 L).
      dropout_rate: on the embeddings and on the output of attention and MLP, in training.
      attention_dropout_rate: on the attention probabilities, in training.
      param_dtype: of the parameters and of the optimizer's moments; "float16" is for reading
        published checkpoints, not for training.
      prefix_length: P, trained keys and values that every query of every layer sees beside its
        interval (P-Tuning v2, arXiv:2110.07602; `pre_seq_len` in published files); 0: none. They
        are not rotated, and the positions of tokens do not move. Their parameters are float32
        whatever param_dtype is; train.trainable="prefix/.*" trains them alone.
      prefix_projection: width of the hidden layer of an MLP that makes the prefix of a table;
        None: the table is the prefix. Published files have embed_dim.
      prefix_embed_dim: width of the table under prefix_projection; None: as published, embed_dim
        with "rotary_block" (ChatGLM-6B), else that of a row of the prefix, 2 L K H.
      prefix_dropout_rate: on the keys and values of the prefix, in training.
      value_head: a vector [D], float32, whose product with the final hidden state at a token is a
        scalar: the reward of an answer at its last token (`train.loss="reward"`). No model that is
        loaded without one has one; it is drawn anew.
      moved: not an option: values of `compute` that were given here, by their old names
        (`glm_jax.config.moved`), until a `Config` or `resolved` takes them.
    """

    vocab_size: int = 8192
    num_layers: int = 12
    embed_dim: int = 768
    num_heads: int = 12
    num_kv_heads: int | None = None
    head_dim: int | None = None
    mlp_dim: int | None = None
    activation: str = "gelu"
    norm: str = "layer_norm"
    norm_epsilon: float = 1e-5
    residual: str = "pre_norm"
    residual_alpha_layers: int | None = None
    biases: str = "all"
    tied_embeddings: bool = True
    max_positions: int = 512
    position_encoding: str = "learned_block"
    rotary_fraction: float = 0.5
    rotary_base: float = 10000.0
    rotary_scaling: str = "none"
    rotary_factor: float = 1.0
    rotary_original_positions: int | None = None
    rotary_dtype: str = "float32"
    initializer_range: float = 0.02
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    param_dtype: str = "float32"
    prefix_length: int = 0
    prefix_projection: int | None = None
    prefix_embed_dim: int | None = None
    prefix_dropout_rate: float = 0.1
    value_head: bool = False
    moved: dataclasses.InitVar[Mapping[str, object] | None] = None

    def __post_init__(self, moved: Mapping[str, object] | None):
        check_types(self, "model")
        for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "max_positions"):
            self._check_size(name)
        for name in (
            *("num_kv_heads", "head_dim", "mlp_dim"),
            *("residual_alpha_layers", "rotary_original_positions"),
            *("prefix_projection", "prefix_embed_dim"),
        ):
            if getattr(self, name) is not None:
                self._check_size(name)
        for name in ("norm_epsilon", "initializer_range"):
            finite_number(f"model.{name}", getattr(self, name), least=0)
        # Below 1 later pairs would turn by more than a radian per position, faster than the first.
        finite_number("model.rotary_base", self.rotary_base, least=1)
        finite_number("model.rotary_factor", self.rotary_factor, above=0)
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise UserError(
                f"model.embed_dim must be a multiple of model.num_heads when model.head_dim is "
                f"None; got embed_dim={self.embed_dim}, num_heads={self.num_heads}"
            )
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise UserError(
                "model.num_heads must be a multiple of model.num_kv_heads; got "
                f"{self.num_heads} and {self.num_kv_heads}"
            )
        for name, choices in _MODEL_CHOICES.items():
            check_choice(f"model.{name}", getattr(self, name), choices)
        if self.residual_alpha_layers is not None and self.residual != "scaled_norm":
            raise UserError(
                "model.residual_alpha_layers is of model.residual='scaled_norm'; got "
                f"{self.residual_alpha_layers} beside {self.residual!r}"
            )
        if not self.has_position_table:
            self._check_rotary()
        self._check_prefix()
        for name in DROPOUT_RATES:
            finite_number(f"model.{name}", getattr(self, name), least=0, below=1)
        if moved:
            with_moved(ComputeConfig(), moved)
            # `dataclasses.replace` reads it here, so that a copy has it too.
            object.__setattr__(self, "moved", moved)

    def _check_size(self, name: str) -> None:
        most = _MOST.get(name, _WIDEST)
        whole_number(f"model.{name}", getattr(self, name), least=1, most=most)

    def _check_prefix(self) -> None:
        whole_number("model.prefix_length", self.prefix_length, least=0, most=_WIDEST)
        for name, needed, there in (
            ("prefix_projection", "model.prefix_length above 0", self.prefix_length),
            ("prefix_embed_dim", "model.prefix_projection", self.prefix_projection),
        ):
            if getattr(self, name) is not None and not there:
                raise UserError(
                    f"model.{name} needs {needed}; got {getattr(self, name)} beside {there}"
                )

    def _check_rotary(self) -> None:
        head_dim = self.head_dim or self.embed_dim // self.num_heads
        part, what = float(head_dim), "a head"
        if self.uses_block_positions:
            part, what = head_dim / 2, "half a head"
        size = part * self.rotary_fraction
        if not 2 <= size <= part or size % 2:
            raise UserError(
                f"model.rotary_fraction must rotate an even share of {what}; got "
                f"{self.rotary_fraction} of {part:g}"
            )

    # What a model does with positions, asked by all that must know; nothing outside of
    # `glm_jax.config` and `glm_jax.models` compares the names of encodings.

    @property
    def has_position_table(self) -> bool:
        """Whether positions are looked up in a learned table, which ends at `max_positions`."""
        return self.position_encoding in ("learned", "learned_block")

    @property
    def uses_block_positions(self) -> bool:
        """Whether the model sees the second dimension, a token's offset in its span."""
        return self.position_encoding in ("learned_block", "rotary_block")

    @property
    def residual_alpha(self) -> float | None:
        """The factor of the normalised input in "scaled_norm"; None: the input itself is added."""
        if self.residual != "scaled_norm":
            return None
        return math.sqrt(2 * (self.residual_alpha_layers or self.num_layers))

    @property
    def table_rows(self) -> int:
        """Rows of a position table; valid positions are 0 to one less.

        Published GLM checkpoints have one row more than their longest text.
        """
        return self.max_positions + (self.has_position_table and self.uses_block_positions)

    @property
    def fills_blanks(self) -> bool:
        """Whether [MASK] in a prompt is a blank to be filled."""
        return self.uses_block_positions

    @property
    def continues_texts(self) -> bool:
        """Whether a prompt is a text to be continued, each token behind the last."""
        return not self.fills_blanks

    @property
    def has_dropout(self) -> bool:
        """Whether training draws any dropout."""
        prefix_rate = self.prefix_dropout_rate if self.prefix_length else 0.0
        return max(self.dropout_rate, self.attention_dropout_rate, prefix_rate) > 0

    @property
    def prefix_row(self) -> int:
        """2 L K H, the numbers in the keys and values of all layers at one of P places."""
        head_dim = self.head_dim or self.embed_dim // self.num_heads
        return 2 * self.num_layers * (self.num_kv_heads or self.num_heads) * head_dim

    @property
    def _published_prefix_embed_dim(self) -> int:
        return self.embed_dim if self.position_encoding == "rotary_block" else self.prefix_row

    def with_prefix(self, other: "ModelConfig") -> "ModelConfig":
        """A plain ModelConfig of this model with the prefix of another config."""
        prefix = {name: getattr(other, name) for name in PREFIX_FIELDS}
        fields = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(ModelConfig)
        }
        return ModelConfig(**{**fields, **prefix}, moved=moved_of(self))

    def with_sizes(self) -> "ModelConfig":
        """A plain ModelConfig with num_kv_heads, head_dim, mlp_dim and so on filled in."""
        return ModelConfig(**self._with_sizes(), moved=moved_of(self))

    def resolved(self, compute: ComputeConfig | None = None) -> "ResolvedModel":
        """The static argument of all that computes: sizes filled in, and how the model runs.

        Args:
          compute: how it runs; None: the defaults of `ComputeConfig`.
        """
        compute = with_moved(compute or ComputeConfig(), moved_of(self))
        return ResolvedModel(**self._with_sizes(), compute=compute)

    # `Any`: values of fields by name, of as many types as there are fields.
    def _with_sizes(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(ModelConfig)]
        return {name: getattr(self, name) for name in names} | {
            "num_kv_heads": self.num_kv_heads or self.num_heads,
            "head_dim": self.head_dim or self.embed_dim // self.num_heads,
            "mlp_dim": self.mlp_dim or 4 * self.embed_dim,
            "prefix_embed_dim": (self.prefix_embed_dim or self._published_prefix_embed_dim)
            if self.prefix_projection
            else None,
        }


@accepts_old_names
@dataclasses.dataclass(frozen=True)
class ResolvedModel(ModelConfig):
    """What computes is given this: a ModelConfig whose sizes are all known, and how it runs.

    Made by `ModelConfig.resolved`. To change a size from which others follow, change the
    ModelConfig and resolve it.

    Attributes:
      num_kv_heads, head_dim, mlp_dim: as of ModelConfig, never None.
      compute: how the model runs.
    """

    num_kv_heads: int = 0
    head_dim: int = 0
    mlp_dim: int = 0
    compute: ComputeConfig = ComputeConfig()

    def __post_init__(self, moved: Mapping[str, object] | None):
        super().__post_init__(None)
        if moved:
            object.__setattr__(self, "compute", with_fields(self.compute, moved))

    def resolved(self, compute: ComputeConfig | None = None) -> "ResolvedModel":
        """Itself; with another `compute` a copy that runs as that says."""
        return self if compute is None else dataclasses.replace(self, compute=compute)

    def with_compute(self, **changes: object) -> "ResolvedModel":
        """A copy with some fields of `compute` changed: `with_compute(scan_layers=False)`."""
        return self.resolved(with_fields(self.compute, changes))

    if not TYPE_CHECKING:  # else every name would be one

        def __getattr__(self, name: str) -> object:
            """The old names can be read, too."""
            if name in FROM_MODEL:
                return getattr(self.compute, FROM_MODEL[name])
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
