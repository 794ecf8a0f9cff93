"""One text to part A and part B by the published rules, with draws from Python's generator.

Each function draws in the order of the original, so the original's seed gives the same arrays.
"""

import dataclasses
import functools
import random

import numpy as np

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.assembly import AssemblyOptions, assemble, assemble_prefix
from glm_jax.corruption.masked import assemble_masked
from glm_jax.corruption.placing import Span, hand_out, place_spans
from glm_jax.corruption.published.text_rows import TextRow
from glm_jax.draws import SpanLengths
from glm_jax.special_tokens import SpecialTokens

Fields = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rules:
    """The settings that all texts share.

    Attributes:
      config: the objectives.
      special: ids to insert.
      block_id: of [dBLOCK]; -1 where nothing is hidden.
      sentence_ends: [V] bool, true for tokens that end a sentence.
    """

    config: ObjectiveConfig
    special: SpecialTokens
    block_id: int
    sentence_ends: np.ndarray

    def spans(
        self, row: TextRow, rng: random.Random, hide: random.Random, single: bool
    ) -> Fields | None:
        """The span objective; None where spans do not fit, since the original drops that row."""
        placed = self._place(row, self._draw_lengths(len(row.tokens), rng, single), rng)
        if placed is None:
            return None
        if self.config.published.masked_lm:
            return assemble_masked(row.tokens.tolist(), sorted(placed), mask_id=self.special.mask)
        return self._assemble(row, placed, SPAN, rng, hide)

    def sentences(self, row: TextRow, rng: random.Random) -> Fields:
        """The sentence objective; nothing is cut out of a text that has no sentence."""
        candidates = self._sentences(row.tokens)
        rng.shuffle(candidates)
        budget = int(self.config.sentence_mask_ratio * len(row.tokens))
        taken: list[Span] = []
        covered = 0
        for start, end in candidates:
            taken.append((start, end))
            covered += end - start
            if covered >= budget:
                break
        return self._assemble(row, taken, SENTENCE, rng)

    def document(self, row: TextRow, longest: int, rng: random.Random) -> Fields | None:
        """The document objective, a stretch of `longest` tokens at most.

        Prefix form where the row holds several documents, else at its rate; None as in `spans`.
        """
        n = len(row.tokens)
        length = min(longest, n - 2)
        if length < 1:
            return self._assemble(row, [], DOCUMENT, rng)
        several = self.special.eos in row.tokens[:-1]
        if several or rng.random() < self.config.document_prefix_rate:
            return assemble_prefix(
                row.tokens.tolist(),
                length,
                mask_id=self._mask(DOCUMENT),
                start_id=self.special.start,
                target_weights=row.weights[-length:].tolist(),
            )
        placed = self._place(row, [length], rng)
        return None if placed is None else self._assemble(row, placed, DOCUMENT, rng)

    def _draw_lengths(self, n: int, rng: random.Random, single: bool) -> list[int]:
        longest, weights = _span_lengths(self.config.mean_span_length, self.config.max_span_length)
        budget = 1 if single else int(self.config.mask_ratio * n)
        lengths: list[int] = []
        while sum(lengths) < budget:
            lengths += rng.choices(longest, weights)
        return lengths

    def _place(self, row: TextRow, lengths: list[int], rng: random.Random) -> list[Span] | None:
        """Spans document by document from the smallest on; None where not all of them fit."""
        rng.shuffle(lengths)
        rng.shuffle(lengths)
        areas, complete = hand_out(
            row.tokens.tolist(),
            lengths,
            cls_id=self.special.cls,
            eos_id=self.special.eos,
            mask_ratio=self.config.mask_ratio,
        )
        spans: list[Span] = []
        for offset, size, taken in areas:
            highest = size - sum(taken) - len(taken) + 1
            draws = [rng.randrange(highest + 1) for _ in taken]
            spans += [(offset + a, offset + b) for a, b in place_spans(taken, size, draws)]
        return spans if complete else None

    def _sentences(self, tokens: np.ndarray) -> list[Span]:
        """The sentences that may be taken, each from one sentence end to the next.

        A tail without a sentence end counts as a sentence at the end of the row, but not before
        eos. The [CLS] of a later document belongs to its first sentence.
        """
        sentences, start = [], int(len(tokens) > 0 and tokens[0] == self.special.cls)
        for end, token in enumerate(tokens.tolist(), 1):
            if self.sentence_ends[token]:
                sentences.append((start, end))
                start = end
            elif token == self.special.eos:
                start = end
        if start < len(tokens):
            sentences.append((start, len(tokens)))
        return sentences

    def _mask(self, objective: int) -> int:
        return self.special.masks_by_objective(self.config.published.task_masks)[objective]

    def _assemble(
        self,
        row: TextRow,
        spans: list[Span],
        objective: int,
        rng: random.Random,
        hide: random.Random | None = None,
    ) -> Fields:
        options, ascending = self.config.published, sorted(spans)
        offset = 0
        if options.random_position:
            # The last position of part A, in which each span is a single mask.
            last = len(row.tokens) - 1 - sum(end - start - 1 for start, end in spans)
            if last < options.row_length - 1:
                offset = rng.randrange(options.row_length - last)
        if self.config.shuffle_spans:
            spans = list(spans)
            rng.shuffle(spans)
        else:
            spans = ascending
        masks: list[int] | int = self._mask(objective)
        start_ids: list[int] | int = self.special.start
        if options.sentinel_id is not None:
            pairs = [options.sentinel_id + 2 * i for i in range(len(spans) - 1)]
            masks = [self._mask(objective), *pairs][: len(spans)]
            start_ids = [self.special.start, *(i + 1 for i in pairs)][: len(spans)]
        hidden = None
        if hide is not None and options.block_mask_rate > 0:
            count = sum(end - start for start, end in spans)
            hidden = [hide.random() < options.block_mask_rate for _ in range(count)]
        return assemble(
            row.tokens.tolist(),
            ascending,
            [ascending.index(span) for span in spans],
            mask_id=masks,
            start_id=start_ids,
            end_id=self.special.end,
            options=AssemblyOptions(
                objective=objective,
                position_offset=offset,
                span_position=None if options.sentinel_id is None else options.row_length,
                hidden=hidden,
                hidden_id=self.block_id,
            ),
        )


@functools.cache
def _span_lengths(mean: float, longest: int) -> tuple[list[int], list[float]]:
    """Span lengths and their probabilities."""
    distribution = SpanLengths.poisson(mean, longest)
    return list(range(1, longest + 1)), distribution.probabilities.tolist()
