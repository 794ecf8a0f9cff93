"""The sections `data` and `objective` of a config: where text comes from, what is cut out of it."""

import dataclasses

from glm_jax.config_checks import check, check_rate
from glm_jax.errors import UserError


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
        check(self.source != "", "data.source", self.source, "'bundled' or a glob of files")
        check(self.sequence_length >= 16, "data.sequence_length", self.sequence_length, ">= 16")
        check(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        check(
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
            check_rate(f"objective.{name}", getattr(self, name))
        total = sum(getattr(self, name) for name in rates)
        if abs(total - 1.0) > 1e-6:
            raise UserError(f"objective.{', objective.'.join(rates)} must sum to 1; got {total:g}")
        for name in ("mask_ratio", "sentence_mask_ratio"):
            value = getattr(self, name)
            check(0.0 < value < 1.0, f"objective.{name}", value, "above 0 and below 1")
        low, high = self.document_min_ratio, self.document_max_ratio
        if not 0.0 < low <= high <= 1.0:
            raise UserError(
                "objective.document_min_ratio and objective.document_max_ratio must satisfy "
                f"0 < min <= max <= 1; got {low} and {high}"
            )
        check(
            self.mean_span_length > 0,
            "objective.mean_span_length",
            self.mean_span_length,
            "above 0",
        )
        check(
            self.max_span_length >= 1,
            "objective.max_span_length",
            self.max_span_length,
            "at least 1",
        )
        for name in ("span_weight", "sentence_weight", "document_weight", "causal_weight"):
            check(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "at least 0")
