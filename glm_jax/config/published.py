"""The part `objective.published` of a config: options that only the published recipes use."""

import dataclasses

from glm_jax.checks import LARGEST_TABLE, check, check_rate, check_types, whole_number
from glm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PublishedOptions:
    """What the published GLM recipes do to rows (github.com/THUDM/GLM); all of it is off here.

    Attributes:
      loader: rows by the rules and draws of the published loader, quirks included, instead of the
        full rows made here; see `glm_jax.data.published`.
      row_length: with loader, most tokens of a row before corruption, which adds two per span.
      micro_batch_rows: with loader, rows that share one objective (a micro-batch of a published
        script).
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
    """

    loader: bool = False
    row_length: int = 512
    micro_batch_rows: int = 16
    short_sequence_rate: float = 0.0
    block_mask_rate: float = 0.0
    context_mask_ratio: float = 0.0
    block_mask_id: int | None = None
    random_position: bool = False
    sentinel_id: int | None = None
    task_masks: bool = True
    masked_lm: bool = False

    def __post_init__(self):
        check_types(self, "objective.published")
        for name in ("short_sequence_rate", "block_mask_rate", "context_mask_ratio"):
            check_rate(f"objective.published.{name}", getattr(self, name))
        for name in ("row_length", "micro_batch_rows"):
            whole_number(f"objective.published.{name}", getattr(self, name), 1, LARGEST_TABLE)
        for name in ("block_mask_id", "sentinel_id"):
            value = getattr(self, name)
            self._check(value is None or value >= 0, name, "an id or None")
        if self.loader:
            both = "with objective.published.loader"
            self._check(self.context_mask_ratio == 0, "context_mask_ratio", f"0 {both}")
            self._check(self.row_length >= 35, "row_length", f"at least 35 {both}")
        if self.masked_lm:
            both = "with objective.published.masked_lm"
            self._check(self.block_mask_rate == 0, "block_mask_rate", f"0 {both}")
            self._check(self.context_mask_ratio == 0, "context_mask_ratio", f"0 {both}")
            self._check(self.sentinel_id is None, "sentinel_id", f"None {both}")

    def _check(self, condition: bool, name: str, allowed: str) -> None:
        check(condition, f"objective.published.{name}", getattr(self, name), allowed)

    def positions_needed(self, sequence_length: int) -> int:
        """The number of first positions that rows of `sequence_length` slots need in a model."""
        longest = self.row_length if self.loader else sequence_length
        # With sentinels, part B has the position after the last one of a row.
        return longest + (self.sentinel_id is not None)

    def check_lengths(self, sequence_length: int, vocab_size: int) -> None:
        """Checks the options against the length of a row and the vocabulary.

        Args:
          sequence_length: T, `data.sequence_length`.
          vocab_size: V, `model.vocab_size`.

        Raises:
          UserError: ids beyond the vocabulary, or rows of the loader longer than T.
        """
        block = self.block_mask_id
        below = block is None or block < vocab_size
        self._check(below, "block_mask_id", f"below model.vocab_size={vocab_size}")
        # A span takes at least three slots of a row: mask, start token, token.
        last = (self.sentinel_id or 0) + 2 * (sequence_length // 3)
        if self.sentinel_id is not None and last >= vocab_size:
            raise UserError(
                f"objective.published.sentinel_id={self.sentinel_id} needs ids up to {last} for "
                f"rows of {sequence_length} slots; model.vocab_size is {vocab_size}"
            )
        if self.loader and sequence_length < self.row_length + 2:
            raise UserError(
                f"objective.published.row_length={self.row_length} needs a data.sequence_length "
                f"of {self.row_length + 2} at least (two more for each span; "
                f"{self.row_length + 2 * int(0.15 * self.row_length)} hold all rows); "
                f"got {sequence_length}"
            )
