"""Rows of a token store by the published rules, quirks included (`objective.published.loader`).

Row i of the published data set holds documents drawn with replacement, by a generator seeded with
i. Rows m * M .. m * M + M - 1 form micro-batch m (M = `objective.published.micro_batch_rows`). They
share an objective and the length of the stretch, drawn by a generator seeded with m. So a row is a
pure function of its number on any number of hosts, and its draws are those of the original.

Differences from the original:

* A row is padded to T slots, which attention never sees; the original's arrays change in shape.
* A row that the original drops is all padding (counted as `rows_dropped`). Tokens that do not fit
  into T slots are left out (counted as `rows_cut`).
* The short texts that the original crops out of a row are segments of that row, each attending only
  to itself.
* Hidden tokens are drawn from the seed and the micro-batch, not from Python's global generator.
* An epoch has as many rows as would hold the split's tokens, and a restart continues with the next
  row.
* A row may also end at a Chinese sentence end.
"""

import math
import random

import numpy as np

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN, Batch, empty_fields
from glm_jax.config.data import DataConfig
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.hiding import block_id
from glm_jax.corruption.published import MicroBatch, Texts, build_micro_batch, text_row
from glm_jax.corruption.published.examples import Fields, Rules
from glm_jax.data.rows import check_split
from glm_jax.data.store import Documents, TokenStore


class PublishedRowBuilder:
    """Builds the published rows of one split; an alternative to `RowBuilder`.

    Attributes:
      num_rows: rows per epoch.
      store: the token store of the documents.
      seed: decides which tokens are hidden.
    """

    def __init__(
        self,
        documents: Documents,
        store: TokenStore,
        data: DataConfig,
        objective: ObjectiveConfig,
        seed: int,
    ):
        """As `RowBuilder`; `seed` decides only which tokens are hidden.

        Raises:
          ValueError: the split is empty, or the vocabulary lacks an id that the objective needs.
        """
        check_split(documents)
        self.store, self.seed = store, seed
        self._length = data.sequence_length
        self._texts = Texts(documents.tokens, np.asarray(documents.offsets))
        special = store.special
        hidden_id = block_id(objective, special, store.vocab_size)
        self._rules = Rules(objective, special, hidden_id, store.sentence_ends)
        self._weights = {
            SPAN: objective.span_weight,
            SENTENCE: objective.sentence_weight,
            DOCUMENT: objective.document_weight,
        }
        self.num_rows = math.ceil(documents.num_tokens / objective.published.row_length)

    def build(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[Batch, dict[str, int]]:
        """Builds rows; arguments and result as `RowBuilder.build`."""
        epochs, rows = np.asarray(epochs, np.int64), np.asarray(rows, np.int64)
        numbers = epochs * self.num_rows + rows
        shape, pad = (len(rows), self._length), self._rules.special.pad
        fields = empty_fields(shape, pad)
        counted = dict.fromkeys((*Corruptor.statistics_names, "rows_dropped", "rows_cut"), 0)
        counted["rows"] = len(rows)
        per_batch = self._rules.config.published.micro_batch_rows
        micro_batch, index = np.divmod(numbers, per_batch)
        for number in np.unique(micro_batch[rows < self.num_rows]).tolist():
            made = self._micro_batch(number)
            for i in np.flatnonzero((micro_batch == number) & (rows < self.num_rows)).tolist():
                examples = made.examples[index[i]]
                counted["rows_dropped"] += not examples
                counted["rows_cut"] += self._write(fields, i, examples)
                for example in examples:
                    self._count(example, made.objective, counted)
        counted["places_used"] = int((fields["attend_end"] > 0).sum())
        counted["targets"] = int((fields["objective"] > 0).sum())
        return Batch(**fields), counted

    def _micro_batch(self, number: int) -> MicroBatch:
        options, special = self._rules.config.published, self._rules.special
        texts = [
            text_row(
                number * options.micro_batch_rows + i,
                self._texts,
                special=special,
                sentence_ends=self._rules.sentence_ends,
                length=options.row_length,
            )
            for i in range(options.micro_batch_rows)
        ]
        hide = random.Random(f"{self.seed}/{number}")
        return build_micro_batch(texts, self._rules, random.Random(number), hide)

    def _write(self, fields: dict[str, np.ndarray], row: int, examples: list[Fields]) -> bool:
        """Writes examples one after the other into a row; returns whether some did not fit."""
        used = 0
        for example in examples:
            part_a, size = int(example["attend_end"][0]), len(example["tokens"])
            kept = min(size, self._length - used)
            # An example that is cut within part A, or right behind it, has nothing to predict.
            if kept < size and kept <= part_a:
                return True
            for name, value in example.items():
                shift = used if name in ("attend_start", "attend_end") else 0
                fields[name][row, used : used + kept] = value[:kept] + shift
            weight = self._weights.get(int(example["objective"].max()), 0.0)
            fields["loss_weights"][row, used : used + kept] *= weight
            used += kept
            if kept < size:
                return True
        return False

    def _count(self, example: Fields, objective: int, counted: dict[str, int]) -> None:
        special = self._rules.special
        predicted = example["objective"] > 0
        masked = int((predicted & (example["targets"] != special.end)).sum())
        inserted = [special.cls, special.eos, *special.masks]
        visible = ~np.isin(example["tokens"][: int(example["attend_end"][0])], inserted)
        counted["masked_tokens"] += masked
        counted["source_tokens"] += masked + int(visible.sum())
        counted["sentence_rows_without_sentence"] += objective == SENTENCE and not masked
