"""The section `objective` of a config: what is cut out of a text, and what it weighs."""

import dataclasses

from glm_jax.checks import (
    check,
    check_rate,
    check_types,
    finite_number,
    whole_number,
)
from glm_jax.errors import UserError

# Tables of that many entries are made, and lists of that many rows.
_LARGEST = 2**16
_RATES = ("span_rate", "sentence_rate", "document_rate", "causal_rate")


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
      short_sequence_rate: share of rows whose texts are cut into short ones, each a text of its own
        with its own [CLS] and spans, of q tokens, q drawn for the row from 32 to T - 2.
      block_mask_rate: share of the tokens in part B of span rows that are hidden as inputs, by
        [dBLOCK]; they stay targets.
      context_mask_ratio: so many tokens of a text in span rows, as a share of its length, are
        hidden by [dBLOCK] in part A, drawn from those within three places of a mask.
      block_mask_id: the id of [dBLOCK]; None: the vocabulary's own. A spare row of the word table
        will do (below model.vocab_size), as in the published models.
      random_position: the first positions of a text are shifted by a draw, up to where its last
        one is T - 1.
      sentinel_id: masks and start tokens of a text's second and later spans, in the order of part
        B, are the ids sentinel_id, sentinel_id + 1, sentinel_id + 2, ... in pairs, and the first
        position in part B is T; None: one mask and one start token for all spans.
      task_masks: sentences have [sMASK] and stretches [gMASK]; False: all have [MASK], as the
        published base and large models.
      masked_lm: in span rows each covered token becomes a [MASK] and is predicted there, seen from
        both sides; there is no part B.
      published: rows by the rules of the published loader with its quirks, drawn as it draws, in
        place of rows that are filled; see `glm_jax.data.published`.
      published_length: longest text of such a row in tokens; the row has two more for each span.
      published_rows: rows that share objective and stretch (micro-batch of a published script).
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
        """What options that change the same thing forbid each other."""
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
        """How many first positions a model must know for rows of `sequence_length` places."""
        longest = self.published_length if self.published else sequence_length
        # With sentinels part B has the position behind the last.
        return longest + (self.sentinel_id is not None)

    def check_lengths(self, sequence_length: int, vocab_size: int) -> None:
        """Checks what the length of a row and the word table allow.

        Args:
          sequence_length: T, `data.sequence_length`.
          vocab_size: V, `model.vocab_size`.

        Raises:
          UserError: ids outside of the word table, or published rows longer than T.
        """
        block = self.block_mask_id
        check(
            block is None or block < vocab_size,
            "objective.block_mask_id",
            block,
            f"below model.vocab_size={vocab_size}",
        )
        # A span takes three places of a row at least: mask, start token, token.
        last = (self.sentinel_id or 0) + 2 * (sequence_length // 3)
        if self.sentinel_id is not None and last >= vocab_size:
            raise UserError(
                f"objective.sentinel_id={self.sentinel_id} needs ids up to {last} for rows of "
                f"{sequence_length} places; model.vocab_size is {vocab_size}"
            )
        if self.published and sequence_length < self.published_length + 2:
            raise UserError(
                f"objective.published_length={self.published_length} needs a data.sequence_length "
                f"of {self.published_length + 2} at least (two places more for each span; "
                f"{self.published_length + 2 * int(0.15 * self.published_length)} hold all rows); "
                f"got {sequence_length}"
            )
