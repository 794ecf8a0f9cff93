"""`Batch`, the only thing that passes from data to model, and the intervals of keys it carries.

Attention in GLM is an interval per query: the token at slot i sees the keys j with
`attend_start[i] <= j < attend_end[i]`. Part A (the text with its spans replaced by masks) sees all
of part A; part B (the spans that were cut out) sees part A and itself up to i:

    prefix_bounds(prefix_length=3, length=6)          j: 0 1 2 3 4 5
        attend_start  0 0 0 0 0 0                 i = 0  x x x . . .   part A
        attend_end    3 3 3 4 5 6                     1  x x x . . .
                                                      2  x x x . . .
                                                      3  x x x x . .   part B
                                                      4  x x x x x .
                                                      5  x x x x x x

Causal models are the case `prefix_length=0`, bidirectional ones `prefix_length=length`. The
intervals of a segment of a packed row start at the segment's first slot, not at 0. Padding has the
empty interval.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from glm_jax.checks import whole_number

# An array. `Any`: jax puts tracers, shapes and shardings in its place.
Field = Any

# Values of `Batch.objective`: the objective of each target.
NONE, SPAN, SENTENCE, DOCUMENT, CAUSAL, ANSWER = range(6)
OBJECTIVES = {
    "span": SPAN,
    "sentence": SENTENCE,
    "document": DOCUMENT,
    "causal": CAUSAL,
    "answer": ANSWER,
}
# Those of texts, each with a rate in `ObjectiveConfig`; answers are those of examples.
OF_TEXTS = ("span", "sentence", "document", "causal")
NUM_OBJECTIVES = len(OBJECTIVES) + 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """B rows of T slots: numpy arrays from the data side, jax arrays inside a step.

    Attributes:
      tokens: [B, T] int32, input ids.
      targets: [B, T] int32, the id to predict at each slot.
      loss_weights: [B, T] float32, 0 where nothing is predicted, else the objective's weight.
      positions: [B, T] int32, first dimension: index in the corrupted text; the tokens of a span
        repeat the index of their mask.
      block_positions: [B, T] int32, second dimension: 0 in part A, 1, 2, .. inside a span.
      attend_start: [B, T] int32, first key each query sees, as an index into the row.
      attend_end: [B, T] int32, one past the last key each query sees.
      objective: [B, T] int32, the objective of each target (`OBJECTIVES`; 0 where nothing is
        predicted), for losses by objective. May be left out.
    """

    tokens: Field
    targets: Field
    loss_weights: Field
    positions: Field
    block_positions: Field
    attend_start: Field
    attend_end: Field
    objective: Field = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Field]) -> "Batch":
        """Builds a Batch from its field names.

        Args:
          fields: arrays of one shape [B, T] by field name; `objective` may be missing (all 0 then).

        Raises:
          ValueError: a field is missing or unknown, or its shape differs from that of `tokens`.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(names))
        missing = sorted(set(names) - set(fields) - {"objective"})
        if unknown or missing:
            raise ValueError(
                f"Batch has the fields {', '.join(names)}; got unknown {unknown}, missing {missing}"
            )
        arrays = {
            name: value if hasattr(value, "shape") else np.asarray(value)
            for name, value in fields.items()
        }
        shape = arrays["tokens"].shape
        if len(shape) != 2:
            raise ValueError(f"Batch.tokens must have shape [B, T]; got {tuple(shape)}")
        for name, value in arrays.items():
            if value.shape != shape:
                raise ValueError(
                    f"Batch.{name} must have the shape of tokens, {tuple(shape)}; "
                    f"got {tuple(value.shape)}"
                )
        if arrays.get("objective") is None:
            arrays["objective"] = np.zeros(shape, np.int32)
        return cls(**arrays)

    def to_dict(self) -> dict[str, Field]:
        """Returns the arrays by field name, not copied."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.tokens.shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScoredBatch(Batch):
    """A Batch whose targets another model has scored, for losses that compare with it; or pairs
    that have margins.

    Attributes:
      reference: [B, T] float32, log-probability of each target by the reference; 0 where nothing is
        predicted. None: no loss asks for it.
      margins: [B, T] float32, at each target of a chosen answer by how much it must win, else 0.
        None: pairs have none.
    """

    reference: Field = None
    margins: Field = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RolloutBatch(ScoredBatch):
    """Answers of a policy, for losses over them; all [B, T] float32, 0 where nothing is predicted.

    `reference`, of `ScoredBatch`, is None where the loss compares with no reference.

    Attributes:
      old: log-probability of each target by the policy that gave the answers.
      advantages: of each target.
      old_values, returns: of a value head, at each slot whose target is predicted; None without.
    """

    old: Field = None
    advantages: Field = None
    old_values: Field = None
    returns: Field = None


# The schema, by field name; whatever makes rows, packs, moves or counts them reads it here.
DTYPES: dict[str, type[np.float32 | np.int32]] = {
    field.name: np.float32 if field.name == "loss_weights" else np.int32
    for field in dataclasses.fields(Batch)
}
BYTES_PER_SLOT = sum(np.dtype(dtype).itemsize for dtype in DTYPES.values())


def empty_fields(shape: int | tuple[int, ...], pad_id: int) -> dict[str, np.ndarray]:
    """The fields of slots that hold nothing: padding, seen by nobody, predicting nothing.

        empty_fields((1, 2), pad_id=7)    tokens and targets [[7 7]], all others [[0 0]]

    Args:
      shape: of each field: [B, T], or the slots of several rows in one.
      pad_id: of tokens and targets.
    """
    fields = {name: np.zeros(shape, dtype) for name, dtype in DTYPES.items()}
    fields["tokens"][...] = fields["targets"][...] = pad_id
    return fields


def prefix_bounds(prefix_length: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The key intervals of one text: bidirectional up to `prefix_length`, causal from there on.

        prefix_bounds(2, 4) -> attend_start [0 0 0 0], attend_end [2 2 3 4]
        prefix_bounds(0, 3) -> attend_start [0 0 0],   attend_end [1 2 3]     causal
        prefix_bounds(3, 3) -> attend_start [0 0 0],   attend_end [3 3 3]     bidirectional

    Args:
      prefix_length: tokens in part A, 0 <= prefix_length <= length.
      length: tokens in part A and part B together.

    Returns:
      (attend_start, attend_end), int32 of shape [length].

    Raises:
      ValueError: prefix_length outside 0..length, or length negative.
    """
    length = whole_number("length", length)
    prefix_length = whole_number("prefix_length", prefix_length)
    if length < 0 or not 0 <= prefix_length <= length:
        raise ValueError(
            f"prefix_length must lie in 0..length; got prefix_length={prefix_length}, "
            f"length={length}"
        )
    start = np.zeros(length, np.int32)
    end = np.maximum(prefix_length, np.arange(1, length + 1)).astype(np.int32)
    return start, end
