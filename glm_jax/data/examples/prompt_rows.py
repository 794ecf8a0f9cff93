"""Rows of prompts, one a row: what a cycle of rollouts begins with.

tokens  <|user|> hi <|assistant|> . .       the prompt's ids; its number in the split is 14
"""

import dataclasses

import numpy as np

from glm_jax.batch import Batch
from glm_jax.data.examples.rows import ExampleRowBuilder


@dataclasses.dataclass(frozen=True)
class PromptBatch(Batch):
    """P prompts, one a row; numpy.

    Attributes:
      numbers: [P] int64, of each prompt in its split; -1 of a row without one.
    """

    numbers: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def ids(self) -> list[list[int]]:
        """The ids of each prompt, the start id of a blank at the end."""
        lengths = (self.attend_end > self.attend_start).sum(axis=1)
        return [row[:length].tolist() for row, length in zip(self.tokens, lengths, strict=True)]


class PromptRowBuilder:
    """The prompts of a split, one a row, as `PromptBatch`es.

    Attributes:
      num_rows, seed, store: as of `ExampleRowBuilder`.
    """

    def __init__(self, rows: ExampleRowBuilder):
        """Of a builder that packs nothing."""
        self._rows = rows
        self.num_rows, self.seed, self.store = rows.num_rows, rows.seed, rows.store

    def build(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[PromptBatch, dict[str, int]]:
        """As `ExampleRowBuilder.build`."""
        batch, counted = self._rows.build(epochs, rows)
        return PromptBatch(**batch.to_dict(), numbers=self._rows.examples_of(rows)), counted
