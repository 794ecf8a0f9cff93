"""`Example`, one segment of a row for tuning, whatever it teaches.

A causal answer; the target of the last token of the question is the first of the answer:

    tokens     <|user|> hi  <|assistant|> yes        targets  hi  <|assistant|> yes  <|user|>
    learnt     .        .   x             x          prefix   0

An answer that fills a blank, as in ChatGLM-6B; part A is seen by all, part B follows:

    tokens     hi [gMASK] sop yes                    targets  [gMASK] sop yes eop
    learnt     .  .       x   x                      prefix   2
    positions  0  1       1   1                      block_positions  0 0 1 2
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.batch import ANSWER, Batch, empty_fields
from glm_jax.errors import UserError

if TYPE_CHECKING:
    from glm_jax.tokenizers.training_example import TrainingExample


@dataclasses.dataclass(frozen=True)
class Example:
    """One segment: what a row holds of it, before it has slots.

    Rows are segments side by side; each attends to itself alone. A segment's own interval of keys
    follows from its first slot s and from `prefix`: `attend_start = s` and
    `attend_end = max(s + prefix, i + 1)`.

    Attributes:
      tokens: [n] int32, input ids, n at least 1.
      targets: [n] int32, the id to predict at each token.
      learnt: [n] bool, where the target counts in the loss.
      positions: [n] int32, first dimension, from 0.
      block_positions: [n] int32, second dimension: 0 in part A and in causal examples.
      prefix: number of leading tokens that all see (part A); 0: causal.
      margin: of the chosen answer of a pair, by how much it must win; None: it has none.
    """

    tokens: np.ndarray
    targets: np.ndarray
    learnt: np.ndarray
    positions: np.ndarray
    block_positions: np.ndarray
    prefix: int = 0
    margin: float | None = None

    def __post_init__(self):
        for field in FIELDS:
            dtype = np.bool_ if field == "learnt" else np.int32
            object.__setattr__(self, field, np.asarray(getattr(self, field), dtype))
        shapes = {getattr(self, field).shape for field in FIELDS}
        if len(shapes) != 1 or len(self.tokens.shape) != 1 or not len(self.tokens):
            raise ValueError(f"the fields of an Example must have one shape [n]; got {shapes}")
        if not 0 <= self.prefix <= len(self.tokens):
            raise ValueError(
                f"prefix must lie in 0..{len(self.tokens)}, the tokens; got {self.prefix}"
            )

    def __len__(self) -> int:
        return len(self.tokens)


# The fields with one value per token.
FIELDS = ("tokens", "targets", "learnt", "positions", "block_positions")


def causal_example(ids: np.ndarray, learnt: np.ndarray) -> Example:
    """The example of a text that is read from left to right.

        ids [5 6 7], learnt [0 0 1]  ->  tokens [5 6], targets [6 7], learnt [0 1]

    Args:
      ids: [n + 1] of the text, n at least 1.
      learnt: [n + 1] bool, which of them are targets; the first can be none.
    """
    ids = np.asarray(ids, np.int32)
    if len(ids) < 2:
        raise UserError(f"an example must have two tokens at least; got {len(ids)}")
    count = np.arange(len(ids) - 1)
    return Example(ids[:-1], ids[1:], np.asarray(learnt, bool)[1:], count, np.zeros_like(count))


def blank_example(ids: np.ndarray, learnt: np.ndarray, prefix: int, blank: int) -> Example:
    """The example of a text whose blank is filled by what follows it.

        ids [a M S b E], prefix 2, blank 1  ->  tokens [a M S b], targets [M S b E],
                                                positions [0 1 1 1], block_positions [0 0 1 2]

    Args:
      ids: [n + 1], part A, the start id, the answer and the end id.
      learnt: [n + 1] bool, which of them are targets.
      prefix: number of ids in part A.
      blank: index of the mask in part A that the rest fills.

    Raises:
      UserError: part A takes all of the tokens.
    """
    if not 0 <= blank < prefix < len(ids):
        raise UserError(
            f"the blank must lie in part A, and part A before the end of {len(ids)} ids; got "
            f"blank={blank}, prefix={prefix}"
        )
    made = causal_example(ids, learnt)
    index = made.positions
    return dataclasses.replace(
        made,
        positions=np.where(index < prefix, index, blank),
        block_positions=np.maximum(0, index - prefix + 1),
        prefix=prefix,
    )


def example_of(text: "TrainingExample", fills_blanks: bool) -> Example:
    """The example of a conversation's ids, for a model of a kind.

    Args:
      text: ids, which of them are learnt, and where its blank is.
      fills_blanks: `ModelConfig.fills_blanks`; a model that does not reads all from left to right.
    """
    ids, learnt = np.array(text.ids), np.array(text.learnt)
    if text.prefix and fills_blanks:
        return blank_example(ids, learnt, text.prefix, text.blank)
    return causal_example(ids, learnt)


def row_of(example: Example, length: int, pad_id: int) -> dict[str, np.ndarray]:
    """The row of one example alone, cut to its length: the fields of a Batch, each [T].

    Args:
      example: one.
      length: T.
      pad_id: of slots without a token, and of targets that are not learnt.
    """
    fields, size = empty_fields(length, pad_id), min(len(example), length)
    for name in ("tokens", "positions", "block_positions"):
        fields[name][:size] = getattr(example, name)[:size]
    learnt = example.learnt[:size]
    fields["targets"][:size][learnt] = example.targets[:size][learnt]
    fields["loss_weights"][:size] = learnt
    fields["objective"][:size] = np.where(learnt, ANSWER, 0)
    ends = np.maximum(example.prefix, np.arange(1, size + 1))
    fields["attend_end"][:size] = np.minimum(ends, size)
    return fields


def rows_of(examples: Sequence[Example], length: int, pad_id: int) -> Batch:
    """A row for each example; numpy, [B, T].

    Args:
      examples: cut to the row's length.
      length: T.
      pad_id: of slots without a token.
    """
    rows = [row_of(one, length, pad_id) for one in examples]
    return Batch(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
