"""The section `objective` of a config: what is cut out of a text, and its weight in the loss."""

import dataclasses

from glm_jax.checks import (
    LARGEST_TABLE,
    check,
    check_rate,
    check_types,
    finite_number,
    whole_number,
)
from glm_jax.config.moved import published_in_its_own_part
from glm_jax.config.published import PublishedOptions
from glm_jax.errors import UserError

_RATES = ("span_rate", "sentence_rate", "document_rate", "causal_rate")


@published_in_its_own_part
@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is cut out of a text (GLM, arXiv:2103.10360, section 2.1) and its weight in the loss.

    A segment is one document's share of a row: the unit that spans are cut out of.

    Attributes:
      span_rate, sentence_rate, document_rate, causal_rate: shares of the rows of each objective:
        [MASK] spans, [sMASK] sentences, one long [gMASK] stretch, and next-token prediction with
        nothing cut out (ChatGLM2 and later). They must sum to 1.
      single_span_rate: share of the span rows that have exactly one span per segment.
      mask_ratio: fraction of a segment's tokens that spans cover.
      mean_span_length: lambda of the Poisson distribution of span lengths, which is cut to
        1..max_span_length.
      max_span_length: the longest span.
      shuffle_spans: True: the spans are in random order in part B; False: in the text's order.
      sentence_mask_ratio: whole sentences are masked until they cover at least this fraction of a
        segment's tokens.
      document_min_ratio, document_max_ratio: range of the [gMASK] stretch as a fraction of the
        segment; the article has 0.5 to 1, the published scripts 0.25 to 1.
      document_prefix_rate: share of document rows whose stretch is the end of the segment, without
        an end token; in the others it lies anywhere.
      span_weight, sentence_weight, document_weight, causal_weight: the loss weight of a predicted
        token.
      published: what only the published recipes use, `objective.published.NAME`; see
        `glm_jax.config.published.PublishedOptions`.
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
    published: PublishedOptions = PublishedOptions()

    def __post_init__(self):
        check_types(self, "objective")
        for name in (*_RATES, "single_span_rate", "document_prefix_rate"):
            check_rate(f"objective.{name}", getattr(self, name))
        total = sum(getattr(self, name) for name in _RATES)
        if abs(total - 1.0) > 1e-6:
            raise UserError(f"objective.{', objective.'.join(_RATES)} must sum to 1; got {total:g}")
        for name in ("mask_ratio", "sentence_mask_ratio"):
            value = getattr(self, name)
            check(0.0 < value < 1.0, f"objective.{name}", value, "above 0 and below 1")
        low, high = self.document_min_ratio, self.document_max_ratio
        if not 0.0 < low <= high <= 1.0:
            raise UserError(
                "objective.document_min_ratio and objective.document_max_ratio must satisfy "
                f"0 < min <= max <= 1; got {low} and {high}"
            )
        finite_number("objective.mean_span_length", self.mean_span_length, above=0)
        whole_number("objective.max_span_length", self.max_span_length, 1, LARGEST_TABLE)
        for name in ("span_weight", "sentence_weight", "document_weight", "causal_weight"):
            check(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "at least 0")
        weights = [name.replace("_rate", "_weight") for name in _RATES if getattr(self, name) > 0]
        if not any(getattr(self, name) > 0 for name in weights):
            raise UserError(f"objective.{', objective.'.join(weights)} must not all be 0")
        causal = self.causal_rate
        allowed = "0 with objective.published.loader"
        check(causal == 0 or not self.published.loader, "objective.causal_rate", causal, allowed)
