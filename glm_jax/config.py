"""What a run is: frozen dataclasses that check themselves.

Each section's docstring says what its fields mean; `config_files.py` reads files and overrides.
"""

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from glm_jax.errors import UserError, did_you_mean


def _check(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise UserError(f"{name} must be {allowed}; got {value!r}")


def _check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        hint = did_you_mean(str(value), map(str, choices))
        raise UserError(f"{name} must be one of {choices}; got {value!r}{hint}")


def _check_rate(name: str, value: float) -> None:
    _check(0.0 <= value <= 1.0, name, value, "between 0 and 1")


_MODEL_CHOICES = {
    "activation": ["gelu", "swiglu"],
    "norm": ["layer_norm", "rms_norm"],
    "residual": ["pre_norm", "sandwich"],
    "biases": ["all", "qkv", "none"],
    "position_encoding": ["learned_block", "learned", "rotary"],
    "rotary_scaling": ["none", "base", "linear", "yarn"],
    "remat": ["none", "full", "attention", "qkv", "qkv_attention", "dots"],
    "attention_backend": ["auto", "pallas_tpu", "tokamax", "pallas_gpu", "xla_chunked", "xla"],
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the Transformer (GLM, arXiv:2103.10360, section 2.2).

    The defaults are GLM (2021); `glm_jax.models.variants` has every published model.

    Attributes:
      vocab_size: V, rows of the word table.
      num_layers: L.
      embed_dim: D.
      num_heads: N; D must be a multiple of it unless head_dim is given.
      num_kv_heads: K, heads of keys and values; query head n uses n // (N / K). None: num_heads;
        1 is multi-query attention (arXiv:1911.02150), between is grouped (arXiv:2305.13245).
      head_dim: H, size of one head; None: embed_dim / num_heads.
      mlp_dim: F, width of the feed-forward layer; None: 4 * embed_dim.
      activation: of the feed-forward layer: "gelu" (tanh form) or "swiglu", the product of
        silu(gate) and up (arXiv:2002.05202).
      norm: "layer_norm", or "rms_norm" (arXiv:1910.07467), which has no bias.
      norm_epsilon: of every norm.
      residual: how a part of a layer joins its input: "pre_norm", x + part(norm(x)); "sandwich",
        x + norm(part(norm(x))) (GLM-4-0414).
      biases: which matrices have one: "all", "qkv" (queries, keys, values: ChatGLM2 and later) or
        "none". The output matrix has none.
      tied_embeddings: the word table is also the output matrix.
      max_positions: P, the longest text. With block positions both tables have P + 1 rows, as the
        published checkpoints have; with "learned" there is one table of P rows; with "rotary" there
        is none, and P is how far generation goes.
      position_encoding: "learned_block" (two tables, GLM), "learned" (one table, GPT) or "rotary"
        (arXiv:2104.09864, neighbouring numbers are a pair).
      rotary_fraction: share of each head, from its start, that is rotated; its size is even.
      rotary_base: b; pair j of R rotated numbers turns by position * b^(-2j / R).
      rotary_scaling: how a longer context was reached: "none"; "base", b times the factor
        (ChatGLM3-32k, GLM-4); "linear", positions divided by it (ChatGLM2-32k, arXiv:2306.15595);
        "yarn" (GLM-4-0414, arXiv:2309.00071).
      rotary_factor: that factor.
      rotary_original_positions: the context before "yarn"; None: max_positions / rotary_factor.
      initializer_range: standard deviation of the initial weights; matrices that write into the
        residual stream get it divided by sqrt(2 L).
      dropout_rate: on the embeddings and on the output of attention and MLP, in training.
      attention_dropout_rate: on the attention probabilities, in training.
      compute_dtype: of activations, "float32" or "bfloat16"; softmax, norms and loss stay float32.
      param_dtype: of the parameters and of the optimizer's moments; "float16" is what published
        checkpoints have, not for training.
      scan_layers: run the layers as one `jax.lax.scan` over stacked parameters (compiles 3-8 times
        faster); None: scanned on accelerators, unrolled on CPU, where steps are faster unrolled.
      remat: what the backward pass computes again: "none", "full" (each layer), or each layer but
        for "attention" (its result), "qkv" (queries, keys, values), "qkv_attention" (both) or
        "dots" (all matrix products); `glm_jax/models/remat.py` says what each saves.
      attention_backend: "auto" takes the first that serves, by device and length: "pallas_tpu" and
        "pallas_gpu" (kernels without T x T arrays; "tokamax" comes before the latter on Hopper, if
        that package is installed), "xla_chunked" (queries in chunks), "xla" (all pairs at once).
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
    biases: str = "all"
    tied_embeddings: bool = True
    max_positions: int = 512
    position_encoding: str = "learned_block"
    rotary_fraction: float = 0.5
    rotary_base: float = 10000.0
    rotary_scaling: str = "none"
    rotary_factor: float = 1.0
    rotary_original_positions: int | None = None
    initializer_range: float = 0.02
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    compute_dtype: str = "float32"
    param_dtype: str = "float32"
    scan_layers: bool | None = None
    remat: str = "none"
    attention_backend: str = "auto"

    def __post_init__(self):
        for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "max_positions"):
            _check(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        for name in ("num_kv_heads", "head_dim", "mlp_dim", "rotary_original_positions"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"model.{name}", value, "at least 1 or None")
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
            _check_choice(f"model.{name}", getattr(self, name), choices)
        if self.position_encoding == "rotary":
            self._check_rotary()
        dtypes = ["float32", "bfloat16"]
        _check_choice("model.compute_dtype", self.compute_dtype, dtypes)
        _check_choice("model.param_dtype", self.param_dtype, [*dtypes, "float16"])
        _check_rate("model.dropout_rate", self.dropout_rate)
        _check_rate("model.attention_dropout_rate", self.attention_dropout_rate)

    def _check_rotary(self) -> None:
        for name in ("rotary_base", "rotary_factor"):
            _check(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "above 0")
        head_dim = self.head_dim or self.embed_dim // self.num_heads
        size = head_dim * self.rotary_fraction
        if not 2 <= size <= head_dim or size % 2:
            raise UserError(
                "model.rotary_fraction must rotate an even share of a head; got "
                f"{self.rotary_fraction} of {head_dim}"
            )

    def resolved(self) -> "ModelConfig":
        """Returns a copy with num_kv_heads, head_dim and mlp_dim filled in."""
        return dataclasses.replace(
            self,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            head_dim=self.head_dim or self.embed_dim // self.num_heads,
            mlp_dim=self.mlp_dim or 4 * self.embed_dim,
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where text comes from and the shape of a Batch.

    Attributes:
      source: "bundled" (the corpus in the package), or a glob of files: "my/*.txt" (UTF-8, an empty
        line ends a document) or "my/*.jsonl" (one JSON object a line, its text under `text_field`).
      text_field: key of the text in JSON lines.
      tokenizer: "bundled", or the path of a sentencepiece model or of a directory that holds one.
      sequence_length: T, places in a row of a Batch: part A and part B together.
      batch_size: B, rows of a step over all hosts.
      eval_fraction: share of the documents held out as the split "eval"; a document's split
        depends on nothing but its text.
      store: directory of the token store; None: a directory under the cache (`GLM_JAX_CACHE`, else
        the user's cache directory), named after the corpus, the tokenizer and these settings.
    """

    source: str = "bundled"
    text_field: str = "text"
    tokenizer: str = "bundled"
    sequence_length: int = 512
    batch_size: int = 32
    eval_fraction: float = 0.02
    store: str | None = None

    def __post_init__(self):
        _check(self.source != "", "data.source", self.source, "'bundled' or a glob of files")
        _check(self.sequence_length >= 16, "data.sequence_length", self.sequence_length, ">= 16")
        _check(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        _check(
            0.0 < self.eval_fraction < 1.0,
            "data.eval_fraction",
            self.eval_fraction,
            "above 0 and below 1",
        )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is cut out of a text (GLM, section 2.1) and what it weighs in the loss.

    Attributes:
      span_rate, sentence_rate, document_rate, causal_rate: shares of rows with [MASK] spans,
        [sMASK] sentences, a [gMASK] stretch, and with nothing cut out, each token predicted from
        those before it (ChatGLM2 and later); they must sum to 1.
      single_span_rate: share of the span rows that have exactly one span.
      mask_ratio: share of a text's tokens that spans cover.
      mean_span_length: lambda of the Poisson law that span lengths follow, from 1 on.
      max_span_length: longest span that is drawn.
      shuffle_spans: order of the spans in part B: drawn (True) or that of the text.
      sentence_mask_ratio: share of the tokens that masked sentences reach, the last one finished.
      document_min_ratio, document_max_ratio: range of the [gMASK] stretch as a share of the text;
        the article has 0.5 to 1, the published scripts 0.25 to 1.
      document_prefix_rate: share of document rows whose stretch is the end of the text (left to
        right); in the others it lies anywhere.
      span_weight, sentence_weight, document_weight, causal_weight: the loss weight of a predicted
        token.
    """

    span_rate: float = 1.0
    sentence_rate: float = 0.0
    document_rate: float = 0.0
    causal_rate: float = 0.0
    single_span_rate: float = 0.0
    mask_ratio: float = 0.15
    mean_span_length: float = 3.0
    max_span_length: int = 39
    shuffle_spans: bool = True
    sentence_mask_ratio: float = 0.15
    document_min_ratio: float = 0.5
    document_max_ratio: float = 1.0
    document_prefix_rate: float = 0.5
    span_weight: float = 1.0
    sentence_weight: float = 1.0
    document_weight: float = 1.0
    causal_weight: float = 1.0

    def __post_init__(self):
        rates = ("span_rate", "sentence_rate", "document_rate", "causal_rate")
        for name in (*rates, "single_span_rate", "document_prefix_rate"):
            _check_rate(f"objective.{name}", getattr(self, name))
        total = sum(getattr(self, name) for name in rates)
        if abs(total - 1.0) > 1e-6:
            raise UserError(f"objective.{', objective.'.join(rates)} must sum to 1; got {total:g}")
        for name in ("mask_ratio", "sentence_mask_ratio"):
            value = getattr(self, name)
            _check(0.0 < value < 1.0, f"objective.{name}", value, "above 0 and below 1")
        low, high = self.document_min_ratio, self.document_max_ratio
        if not 0.0 < low <= high <= 1.0:
            raise UserError(
                "objective.document_min_ratio and objective.document_max_ratio must satisfy "
                f"0 < min <= max <= 1; got {low} and {high}"
            )
        _check(
            self.mean_span_length > 0,
            "objective.mean_span_length",
            self.mean_span_length,
            "above 0",
        )
        _check(
            self.max_span_length >= 1,
            "objective.max_span_length",
            self.max_span_length,
            "at least 1",
        )
        for name in ("span_weight", "sentence_weight", "document_weight", "causal_weight"):
            _check(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "at least 0")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with the published decay groups (no decay on norms and biases), and its schedule.

    Attributes:
      peak_learning_rate: reached after `warmup_steps`.
      schedule: "cosine", "linear" or "constant"; falls to `final_ratio` of the peak at
        `decay_steps` and stays there.
      warmup_steps: linear rise from 0.
      decay_steps: step at which the fall ends, warm-up included; None: train.num_steps.
      final_ratio: floor as a share of the peak.
      beta1, beta2, epsilon: of AdamW.
      weight_decay: of either, decoupled.
      clip_norm: largest global norm of the gradient; None: no clipping.
      name: "adamw", or "adafactor", whose second moment is a row and a column a matrix and which
        has no first (arXiv:1804.04235): a third of AdamW's memory, state and parameters together.
    """

    peak_learning_rate: float = 4e-4
    schedule: str = "cosine"
    warmup_steps: int = 100
    decay_steps: int | None = None
    final_ratio: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0
    name: str = "adamw"

    def __post_init__(self):
        _check_choice("optimizer.name", self.name, ["adamw", "adafactor"])
        _check_choice("optimizer.schedule", self.schedule, ["cosine", "linear", "constant"])
        for name in ("peak_learning_rate", "warmup_steps", "weight_decay", "epsilon"):
            _check(getattr(self, name) >= 0, f"optimizer.{name}", getattr(self, name), "at least 0")
        for name in ("beta1", "beta2", "final_ratio"):
            _check_rate(f"optimizer.{name}", getattr(self, name))
        _check(
            self.decay_steps is None or self.decay_steps >= 1,
            "optimizer.decay_steps",
            self.decay_steps,
            "at least 1 or None",
        )
        _check(
            self.clip_norm is None or self.clip_norm > 0,
            "optimizer.clip_norm",
            self.clip_norm,
            "above 0 or None",
        )


CROSS_ENTROPIES = (None, "plain", "chunked", "gradient_in_forward")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop.

    Attributes:
      num_steps: optimizer steps in all.
      seed: of parameters, dropout, row order and corruption.
      init_from: a model to go on from: a Hugging Face directory or the workdir of another run. Its
        shape replaces `model.*`, but for dropout, dtypes, remat, scan_layers and the attention
        backend. None: parameters are drawn.
      accumulation_steps: parts a batch is cut into, one after the other, before an optimizer step;
        the result is that of the whole batch.
      loss_reduction: "token_mean" (every predicted token of the global batch alike, times its
        objective's weight) or "objective_mean" (sum over objectives of weight * mean over the
        objective's own tokens).
      cross_entropy: how logits are computed in a step: "plain" (all at once), "chunked" (a chunk at
        once, again for the gradient) or "gradient_in_forward" (the gradient with them, only where
        something is predicted); the loss is the same. None: "chunked", on CPU, where memory is not
        scarce, "gradient_in_forward".
      loss_chunk: places of a device whose logits are there at once; None: 1024, on CPU 256.
      log_every, eval_every, checkpoint_every, sample_every: steps between rows of metrics.jsonl,
        evaluations, checkpoints and filled samples; 0: never (a last checkpoint, evaluation and
        sample come at the end all the same).
      eval_batches: batches of the split "eval" in one evaluation.
      keep_checkpoints: how many of the newest checkpoints stay.
    """

    num_steps: int = 1000
    seed: int = 0
    init_from: str | None = None
    accumulation_steps: int = 1
    loss_reduction: str = "token_mean"
    cross_entropy: str | None = None
    loss_chunk: int | None = None
    log_every: int = 10
    eval_every: int = 200
    eval_batches: int = 8
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    sample_every: int = 0

    def __post_init__(self):
        for name in ("num_steps", "accumulation_steps", "eval_batches", "keep_checkpoints"):
            _check(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        for name in ("seed", "log_every", "eval_every", "checkpoint_every", "sample_every"):
            _check(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "at least 0")
        _check_choice("train.loss_reduction", self.loss_reduction, ["token_mean", "objective_mean"])
        _check_choice("train.cross_entropy", self.cross_entropy, CROSS_ENTROPIES)
        _check(
            self.loss_chunk is None or self.loss_chunk >= 1,
            "train.loss_chunk",
            self.loss_chunk,
            "at least 1 or None",
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 takes what the others leave, on one axis at most.

    Attributes:
      data: replicas of the parameters; batch rows are split over it.
      fsdp: parameters, optimizer state and batch rows are split over it.
      tensor: heads, MLP width and vocabulary are split over it.
      sequence: the places of a row are split over it; each device gathers the keys and values of
        the whole row.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self):
        sizes = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, size in sizes.items():
            _check(size == -1 or size >= 1, f"mesh.{name}", size, "at least 1, or -1 for the rest")
        if list(sizes.values()).count(-1) > 1:
            raise UserError(f"at most one axis of mesh may be -1; got {sizes}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self):
        if self.data.batch_size % self.train.accumulation_steps:
            raise UserError(
                "data.batch_size must be a multiple of train.accumulation_steps; got "
                f"{self.data.batch_size} and {self.train.accumulation_steps}"
            )


def field_types(section: Any) -> dict[str, Any]:
    """The annotated type of each field of a section, by name."""
    return typing.get_type_hints(type(section))


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """The config as nested plain values, as `run.json` holds it."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Mapping[str, Any]]) -> Config:
    """The inverse of `to_dict`.

    Raises:
      ValueError: a section or a name that this version does not know.
    """
    default = Config()
    sections = {}
    for name in [field.name for field in dataclasses.fields(default)]:
        section = getattr(default, name)
        given = values.get(name, {})
        unknown = sorted(set(given) - set(field_types(section)))
        if unknown:
            raise UserError(f"unknown config names {[f'{name}.{key}' for key in unknown]}")
        sections[name] = type(section)(**given)
    unknown = sorted(set(values) - set(sections))
    if unknown:
        raise UserError(f"unknown config sections {unknown}; known: {sorted(sections)}")
    return Config(**sections)


def to_json(config: Config) -> str:
    """`to_dict` as indented JSON."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The dotted names whose values differ: `{"model.num_layers": (2, 4)}`."""
    before, after = to_dict(old), to_dict(new)
    return {
        f"{section}.{key}": (before[section][key], after[section][key])
        for section in before
        for key in before[section]
        if before[section][key] != after[section][key]
    }
