"""`Corruptor`: draws the objective of each row, plans the row and writes it."""

import numpy as np

from glm_jax.batch import CAUSAL, DOCUMENT, SENTENCE, SPAN
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.causal import write_causal
from glm_jax.corruption.documents import plan_documents
from glm_jax.corruption.hiding import block_id, hide_context, hide_inputs
from glm_jax.corruption.masked import write_masked
from glm_jax.corruption.plan import Plan, Segments
from glm_jax.corruption.rows import write_rows
from glm_jax.corruption.sentences import plan_sentences
from glm_jax.corruption.shifting import shift_positions
from glm_jax.corruption.short import cut_short
from glm_jax.corruption.spans import plan_spans
from glm_jax.draws import Draws, Purpose, SpanLengths, unit
from glm_jax.special_tokens import SpecialTokens

# Rows worked on at once: enough to hide the cost of numpy calls, few enough for the cache.
CHUNK = 256
_SINGLE = -1  # a span row with one span per segment


class Corruptor:
    """Turns segments of documents into rows of T slots, each row a pure function of its draws.

    Attributes:
      statistics_names: what `build` counts: `rows`; `places_used`, slots that are not padding;
        `source_tokens`, stored tokens in the rows; `masked_tokens`, stored tokens in spans;
        `targets`, slots with something to predict; `rows_fewer_spans`, rows that got fewer or
        shorter spans than drawn because not all fit; `sentence_rows_without_sentence`, rows of the
        sentence objective with a segment that has no whole sentence and got spans instead.
    """

    statistics_names = (
        "rows",
        "places_used",
        "source_tokens",
        "masked_tokens",
        "targets",
        "rows_fewer_spans",
        "sentence_rows_without_sentence",
    )

    def __init__(
        self,
        config: ObjectiveConfig,
        special: SpecialTokens,
        sentence_ends: np.ndarray,
        length: int,
        seed: int,
    ):
        """Sets what all rows have in common.

        Args:
          config: the objectives.
          special: ids to insert.
          sentence_ends: [V] bool, true for tokens that end a sentence.
          length: T, at least 16.
          seed: of all draws.

        Raises:
          UserError: tokens are to be hidden and there is no id for hidden tokens, or the id given
            is one that text has.
        """
        self._config, self._special = config, special
        self._sentence_ends, self._length, self._seed = sentence_ends, length, seed
        self._lengths = SpanLengths.poisson(config.mean_span_length, config.max_span_length)
        self._block_id = block_id(config, special, len(sentence_ends))

    def build(
        self, segments: Segments, stored: np.ndarray, epochs: np.ndarray, rows: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Builds rows.

        Args:
          segments: of R rows; a row without segments becomes all padding.
          stored: [N] stored tokens, indexed by `segments.source`.
          epochs, rows: [R] epoch and index of each row, which key its draws.

        Returns:
          The fields of a Batch by name, [R, T], and the counts by `statistics_names`.
        """
        draws = Draws(self._seed, np.asarray(epochs, np.int64), np.asarray(rows, np.int64))
        kinds = self.kinds(draws)
        if rate := self._config.published.short_sequence_rate:
            segments = cut_short(segments, draws, self._length, rate)
        fields: dict[str, np.ndarray] = {}
        statistics = dict.fromkeys(self.statistics_names, 0)
        for kind in np.unique(kinds):
            members = np.flatnonzero(kinds == kind)
            for chosen in np.array_split(members, -(-len(members) // CHUNK)):
                written, counted = self._write(
                    int(kind), segments.take(chosen), draws.take(chosen), stored
                )
                for name, number in counted.items():
                    statistics[name] += number
                for name, value in written.items():
                    if name not in fields:
                        fields[name] = np.empty((len(kinds), self._length), value.dtype)
                    fields[name][chosen] = value
        return fields, statistics

    def kinds(self, draws: Draws) -> np.ndarray:
        """[R] the drawn objective of each row; -1 is a span row with a single span per segment."""
        config = self._config
        which, single = draws.integers(Purpose.ROW, np.full(len(draws.rows), 2)).reshape(-1, 2).T
        which = unit(which)
        kinds = np.where(unit(single) < config.single_span_rate, _SINGLE, SPAN)
        kinds[which >= config.span_rate] = SENTENCE
        kinds[which >= config.span_rate + config.sentence_rate] = DOCUMENT
        kinds[which >= config.span_rate + config.sentence_rate + config.document_rate] = CAUSAL
        # The rates may sum to slightly less than 1: the last objective in use gets the rest.
        rates = (config.span_rate, config.sentence_rate, config.document_rate, config.causal_rate)
        last = max(index for index, rate in enumerate(rates) if rate > 0)
        return np.minimum(kinds, (SPAN, SENTENCE, DOCUMENT, CAUSAL)[last])

    def _write(
        self, kind: int, segments: Segments, draws: Draws, stored: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Writes rows of one kind; returns their fields and counts."""
        if kind == CAUSAL:
            return write_causal(segments, stored, self._length, self._special, self._config)
        plan = self.plan(kind, segments, draws, stored)
        rows = len(segments.counts)
        masked = self._config.published.masked_lm and kind in (SPAN, _SINGLE)
        write = write_masked if masked else write_rows
        written = write(plan, stored, rows, self._length, self._special, self._config)
        self._vary(written, draws)
        return written, _count(plan, rows, has_part_b=not masked)

    def _vary(self, fields: dict[str, np.ndarray], draws: Draws) -> None:
        """Applies the options that change rows already written."""
        options = self._config.published
        if options.block_mask_rate:
            hide_inputs(fields, draws, options.block_mask_rate, self._block_id)
        if options.context_mask_ratio:
            ratio, sentinel = options.context_mask_ratio, options.sentinel_id
            hide_context(fields, draws, ratio, self._block_id, self._special, sentinel)
        if options.random_position:
            shift_positions(fields, draws)

    def plan(self, kind: int, segments: Segments, draws: Draws, stored: np.ndarray) -> Plan:
        """Plans rows of one kind; every kind but `CAUSAL` cuts spans out."""
        config, length, lengths = self._config, self._length, self._lengths
        if kind == DOCUMENT:
            return plan_documents(segments, draws, length, config)
        if kind == SENTENCE:
            return plan_sentences(
                segments, draws, length, lengths, config, stored, self._sentence_ends
            )
        return plan_spans(segments, draws, length, lengths, config, single=kind == _SINGLE)


def _count(plan: Plan, rows: int, has_part_b: bool = True) -> dict[str, int]:
    source, masked, closed = (int(x.sum()) for x in (plan.size, plan.length, plan.closed))
    # A segment has [CLS], its tokens and eos. A span adds a mask and a start token; in the prefix
    # form only one slot, since the last token is a target only.
    extra = closed + len(plan.closed) if has_part_b else 0
    return {
        "rows": rows,
        "places_used": len(plan.row) + source + int(plan.eos.sum()) + extra,
        "source_tokens": source,
        "masked_tokens": masked,
        "targets": masked + closed if has_part_b else masked,
        "rows_fewer_spans": int(plan.fewer.sum()),
        "sentence_rows_without_sentence": int(plan.fallen_back.sum()),
    }
