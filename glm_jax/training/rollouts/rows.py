"""Rows of answers: each goes on where its prompt breaks off.

causal          <|user|> hi <|assistant|> yes          learnt  .  .  x  x
fills blanks    hi [gMASK] sop yes                     learnt  .  .  x  x     positions 0 1 1 1
"""

import functools
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float

from glm_jax.batch import Batch
from glm_jax.data.examples.example import Example, blank_example, causal_example
from glm_jax.data.examples.prompts import blank_of
from glm_jax.special_tokens import SpecialTokens

B = TypeVar("B", bound=Batch)


def answer_example(
    prompt: Sequence[int], answer: Sequence[int], special: SpecialTokens, fills_blanks: bool
) -> Example:
    """A prompt and its answer as one segment, the answer learnt.

    Args:
      prompt: its ids, the start id of a blank at the end.
      answer: the ids as they were chosen, the end id among them.
      special: of the tokenizer.
      fills_blanks: `ModelConfig.fills_blanks`.
    """
    ids = np.array([*prompt, *answer], np.int32)
    learnt = np.arange(len(ids)) >= len(prompt)
    if not fills_blanks:
        return causal_example(ids, learnt)
    return blank_example(ids, learnt, len(prompt) - 1, blank_of(prompt, special))


def in_parts(batch: B, size: int) -> list[B]:
    """Batches of `size` rows each; numpy."""

    def part(leaf: np.ndarray, start: int) -> np.ndarray:
        return leaf[start : start + size]

    return [
        jax.tree.map(functools.partial(part, start=start), batch)
        for start in range(0, len(batch.tokens), size)
    ]


def at_answers(
    batch: Batch, values: Float[np.ndarray, "rows tokens"]
) -> Float[np.ndarray, "rows length"]:
    """Values of the tokens of each answer at their slots [B, T]; float32, 0 elsewhere.

    learnt [. . x x]    values [1 2 0 0]    ->    [0 0 1 2]
    """
    learnt = batch.loss_weights > 0
    found = np.zeros(learnt.shape, np.float32)
    index = np.cumsum(learnt, axis=1) - 1
    rows, slots = np.nonzero(learnt)
    found[rows, slots] = values[rows, index[rows, slots]]
    return found


def of_answers(
    batch: Batch, values: Float[np.ndarray, "rows length"]
) -> Float[np.ndarray, "rows tokens"]:
    """The inverse of `at_answers`: the values at the slots of each answer, from its first token on.

    Returns:
      Float64, as wide as the longest answer, 0 behind an answer's end.
    """
    learnt = batch.loss_weights > 0
    lengths = learnt.sum(axis=1)
    found = np.zeros((len(learnt), max(int(lengths.max(initial=0)), 1)))
    index = np.cumsum(learnt, axis=1) - 1
    rows, slots = np.nonzero(learnt)
    found[rows, index[rows, slots]] = values[rows, slots]
    return found
