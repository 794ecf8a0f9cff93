"""Rows of a token store: row i of epoch e is a pure function of (seed, e, i).

The documents of a split form one circular stream. It is measured in the slots that it is expected
to fill in rows: its tokens, [CLS] and eos per document, and two per span. One window starts every
0.97 T slots; each epoch shifts all windows by a random offset. A row takes as much of the stream
from its window's start on as fills its T slots. Since windows are a little closer than a row is
long, an epoch skips hardly any token, and neighbouring rows share a few per cent of their tokens.
"""

import math

import numpy as np

from glm_jax.batch import Batch
from glm_jax.config.data import DataConfig
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.causal import PREFIX
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.plan import SHORTEST_BEGINNING, Segments
from glm_jax.corruption.short import expected_parts
from glm_jax.data.store import Documents, TokenStore
from glm_jax.draws import Draws, Purpose, SpanLengths, below
from glm_jax.errors import UserError
from glm_jax.ragged import group_of, within_groups

# Version of the rows that a store, a config and a seed make. Every change of rows raises it, so
# that a run does not continue with other rows (`glm_jax.training.run.workdir.check_workdir`).
#   1  the span that exceeds a segment's budget comes last
#   2  the spans of a segment are shuffled
ROW_FORMAT = 2

# Distance of windows as a fraction of the slots in a row.
_FILL = 0.97
# Slots along the stream are counted in units of 1 / _UNIT.
_UNIT = 1024


class RowBuilder:
    """Builds the rows of one split.

    Attributes:
      num_rows: rows per epoch.
      store: the token store of the documents.
      seed: of corruption, row order and window offsets.
    """

    def __init__(
        self,
        documents: Documents,
        store: TokenStore,
        data: DataConfig,
        objective: ObjectiveConfig,
        seed: int,
    ):
        """Lays out the windows of an epoch.

        Raises:
          ValueError: the split is empty, or `objective.published.loader` asks for rows of another
            kind.
        """
        if objective.published.loader:
            raise UserError(
                "objective.published.loader must be False here; its rows come from a token store, "
                "as glm_jax.train reads it, and by glm_jax.batches"
            )
        check_split(documents)
        self.store, self.seed = store, seed
        self._documents, self._length = documents, data.sequence_length
        self._corruptor = Corruptor(
            objective, store.special, store.sentence_ends, data.sequence_length, seed
        )
        self._offsets = np.asarray(documents.offsets)
        self._starts = np.append(
            0, np.cumsum(_slots(np.diff(self._offsets), objective, self._length))
        )
        total = int(self._starts[-1])
        self.num_rows = math.ceil(total / (_FILL * self._length * _UNIT))
        self._stride = total // self.num_rows

    def build(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[Batch, dict[str, int]]:
        """Builds rows; each depends only on its own epoch and index.

        Args:
          epochs: [B] integers, at least 0.
          rows: [B] integers, at least 0; rows from `num_rows` on are all padding.

        Returns:
          A numpy Batch [B, T] and the counts by `Corruptor.statistics_names`.
        """
        epochs, rows = np.asarray(epochs, np.int64), np.asarray(rows, np.int64)
        segments = self._segments(epochs, rows)
        fields, statistics = self._corruptor.build(segments, self._documents.tokens, epochs, rows)
        return Batch(**fields), statistics

    def _segments(self, epochs: np.ndarray, rows: np.ndarray) -> Segments:
        """The segments available to each row, from its window's start on."""
        offsets, count = self._offsets, len(self._documents)
        source = self._window_starts(epochs, rows)
        first = np.searchsorted(offsets, source, side="right") - 1
        # A row needs at most T tokens, and none twice.
        end = source + min(self._length, self._documents.num_tokens)
        wraps = end > offsets[-1]
        last = np.searchsorted(offsets, end - wraps * offsets[-1], side="left") - 1 + wraps * count
        counts = np.where(rows < self.num_rows, last - first + 1, 0)

        row, index = group_of(counts), within_groups(counts)
        turn, document = np.divmod(first[row] + index, count)
        start = np.where(index == 0, source[row], offsets[document])
        document_end = offsets[document + 1]
        stop = np.minimum(document_end, end[row] - turn * offsets[-1])
        return Segments(
            counts=counts,
            source=start,
            size=stop - start,
            begins=start == offsets[document],
            ends=stop == document_end,
        )

    def _window_starts(self, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """[B] index into the split's tokens at which each row's window starts."""
        slot = (rows * self._stride + self._shift(epochs)) % self._starts[-1]
        document = np.searchsorted(self._starts, slot, side="right") - 1
        begin, end = self._starts[document], self._starts[document + 1]
        size = self._offsets[document + 1] - self._offsets[document]
        # In floating point: the product of two large integers could overflow.
        token = ((slot - begin) / (end - begin) * size).astype(np.int64)
        token = np.minimum(token, size - 1)
        # The row before leaves out beginnings shorter than this, so the document starts here.
        token = np.where(token < SHORTEST_BEGINNING, 0, token)
        return self._offsets[document] + token

    def _shift(self, epochs: np.ndarray) -> np.ndarray:
        none = np.zeros_like(epochs)
        draws = Draws(self.seed, epochs, none).integers(Purpose.SHIFT, none + 1)
        return below(draws, min(self._stride, 2**31 - 1))


def check_split(documents: Documents) -> None:
    """Refuses a split without tokens."""
    if not documents.num_tokens:
        raise UserError(
            f"split {documents.name!r} of the corpus is empty; give data.source more documents "
            "or change data.eval_fraction"
        )


def _slots(size: np.ndarray, objective: ObjectiveConfig, length: int) -> np.ndarray:
    """Expected number of slots that documents of `size` tokens fill, in units of 1 / `_UNIT`.

    To its tokens a document adds [CLS], eos and two slots per span, counted for the objective with
    most spans. A causal document adds the two tokens of `PREFIX`. Segments that are cut short add
    [CLS] and a span each.
    """
    if objective.causal_rate == 1.0:
        return (size + PREFIX) * _UNIT
    lengths = SpanLengths.poisson(objective.mean_span_length, objective.max_span_length)
    only_one = (
        objective.document_rate == 1.0 or objective.span_rate * objective.single_span_rate == 1.0
    )
    spans_per_token = 0.0 if only_one else objective.mask_ratio / lengths.mean
    per_span = 0 if objective.published.masked_lm and objective.span_rate == 1.0 else 2
    slots = size + 2 + per_span * np.maximum(1.0, spans_per_token * size)
    if rate := objective.published.short_sequence_rate:
        slots += (1 + per_span) * expected_parts(length, rate) * size
    return (slots * _UNIT).astype(np.int64)
