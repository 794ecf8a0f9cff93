"""The section `objective` of a config: what is cut out of a text, and its weight in the loss."""

import dataclasses

from glm_jax.checks import (
    check,
    check_rate,
    check_types,
    finite_number,
    whole_number,
)
from glm_jax.errors import UserError

# Tables of this many entries are made, and lists of this many rows.
_LARGEST = 2**16
_RATES = ("span_rate", "sentence_rate", "document_rate", "causal_rate")


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
      short_sequence_rate: share of rows whose segments are cut into short ones of at most q tokens,
        each with its own [CLS] and spans; q is drawn per row, from 32 to T - 2.
      block_mask_rate: fraction of the tokens of part B that are replaced by [dBLOCK] as inputs, in
        span rows; they stay targets.
      context_mask_ratio: fraction of a segment's tokens that are replaced by [dBLOCK] in part A, in
        span rows; they are drawn from the tokens within three slots of a mask.
      block_mask_id: the id of [dBLOCK]; None: the vocabulary's own. An unused id below
        model.vocab_size will do, as in the published models.
      random_position: the first positions of a segment are shifted by a random offset, such that
        those of part A stay below T.
      sentinel_id: the second and later spans of part B get masks and start tokens of their own, the
        ids sentinel_id, sentinel_id + 1, sentinel_id + 2, ... in pairs, and the first position in
        part B is T. None: one mask and one start token for all spans.
      task_masks: sentences have [sMASK] and stretches [gMASK]; False: all have [MASK], as in the
        published base and large models.
      masked_lm: in span rows each token of a span becomes a [MASK] and is predicted at its own
        slot, with bidirectional attention; there is no part B.
      published: rows by the rules and draws of the published loader, quirks included, instead of
        the full rows made here; see `glm_jax.data.published`.
      published_length: most tokens of such a row before corruption, which adds two per span.
      published_rows: rows that share one objective (a micro-batch of a published script).
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
    short_sequence_rate: float = 0.0
    block_mask_rate: float = 0.0
    context_mask_ratio: float = 0.0
    block_mask_id: int | None = None
    random_position: bool = False
    sentinel_id: int | None = None
    task_masks: bool = True
    masked_lm: bool = False
    published: bool = False
    published_length: int = 512
    published_rows: int = 16

    def __post_init__(self):
        check_types(self, "objective")
        for name in (
            *_RATES,
            "single_span_rate",
            "document_prefix_rate",
            "short_sequence_rate",
            "block_mask_rate",
            "context_mask_ratio",
        ):
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
        for name in ("max_span_length", "published_length", "published_rows"):
            whole_number(f"objective.{name}", getattr(self, name), 1, _LARGEST)
        for name in ("span_weight", "sentence_weight", "document_weight", "causal_weight"):
            check(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "at least 0")
        weights = [name.replace("_rate", "_weight") for name in _RATES if getattr(self, name) > 0]
        if not any(getattr(self, name) > 0 for name in weights):
            raise UserError(f"objective.{', objective.'.join(weights)} must not all be 0")
        for name in ("block_mask_id", "sentinel_id"):
            value = getattr(self, name)
            check(value is None or value >= 0, f"objective.{name}", value, "an id or None")
        self._check_together()

    def _check_together(self) -> None:
        """Refuses options that exclude each other."""
        if self.published:
            for name in ("causal_rate", "context_mask_ratio"):
                value = getattr(self, name)
                check(value == 0, f"objective.{name}", value, "0 with objective.published")
            length = self.published_length
            check(length >= 35, "objective.published_length", length, "at least 35")
        if self.masked_lm:
            for name in ("block_mask_rate", "context_mask_ratio"):
                value = getattr(self, name)
                check(value == 0, f"objective.{name}", value, "0 with objective.masked_lm")
            check(
                self.sentinel_id is None,
                "objective.sentinel_id",
                self.sentinel_id,
                "None with objective.masked_lm",
            )

    def positions_needed(self, sequence_length: int) -> int:
        """The number of first positions that rows of `sequence_length` slots need in a model."""
        longest = self.published_length if self.published else sequence_length
        # With sentinels, part B has the position after the last one of a row.
        return longest + (self.sentinel_id is not None)

    def check_lengths(self, sequence_length: int, vocab_size: int) -> None:
        """Checks the options against the length of a row and the vocabulary.

        Args:
          sequence_length: T, `data.sequence_length`.
          vocab_size: V, `model.vocab_size`.

        Raises:
          UserError: ids beyond the vocabulary, or published rows longer than T.
        """
        block = self.block_mask_id
        check(
            block is None or block < vocab_size,
            "objective.block_mask_id",
            block,
            f"below model.vocab_size={vocab_size}",
        )
        # A span takes at least three slots of a row: mask, start token, token.
        last = (self.sentinel_id or 0) + 2 * (sequence_length // 3)
        if self.sentinel_id is not None and last >= vocab_size:
            raise UserError(
                f"objective.sentinel_id={self.sentinel_id} needs ids up to {last} for rows of "
                f"{sequence_length} slots; model.vocab_size is {vocab_size}"
            )
        if self.published and sequence_length < self.published_length + 2:
            raise UserError(
                f"objective.published_length={self.published_length} needs a data.sequence_length "
                f"of {self.published_length + 2} at least (two more for each span; "
                f"{self.published_length + 2 * int(0.15 * self.published_length)} hold all rows); "
                f"got {sequence_length}"
            )
