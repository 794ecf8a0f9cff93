"""What passes between a kind of task and its runner: prepared examples, and what became of them."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from glm_jax.evaluation.examples import Example


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prompt and an answer to be scored.

    Attributes:
      prompt, answer: ids, one at least of each.
      cut: whether the prompt lost tokens.
    """

    prompt: list[int]
    answer: list[int]
    cut: bool


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An example as one model is asked.

    Attributes:
      example: before.
      prompt: ids, of a kind that generates; of "perplexity" those of the text.
      pairs: prompts and answers, of a kind that scores.
      cut: whether a prompt lost tokens.
    """

    example: Example
    prompt: list[int] = dataclasses.field(default_factory=list)
    pairs: tuple[Pair, ...] = ()
    cut: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a model made of an example.

    Attributes:
      answer: as text.
      rows: by metric, numbers whose sums over examples give the metric
        (`glm_jax.evaluation.statistics`).
    """

    answer: str
    rows: dict[str, Float64[np.ndarray, " k"]]


def hit(right: bool) -> Float64[np.ndarray, "2"]:
    """The row of an example in a mean of hits."""
    return np.array([float(right), 1.0])
