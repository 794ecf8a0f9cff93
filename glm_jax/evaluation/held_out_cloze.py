"""Accuracy by likelihood on the clozes that a run held out: those of its own files and pattern."""

from typing import TYPE_CHECKING

import numpy as np

from glm_jax.config import Config
from glm_jax.data.examples.building import objects_of
from glm_jax.data.examples.clozes import Cloze, ClozeMaker
from glm_jax.errors import UserError
from glm_jax.evaluation.asked import Pair, Prepared
from glm_jax.evaluation.choosing import ask
from glm_jax.evaluation.examples import Example
from glm_jax.evaluation.statistics import mean
from glm_jax.evaluation.task_spec import Spec

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

_SPEC = Spec(kind="choice", data="", metrics=("accuracy", "accuracy_per_token"))


def accuracy(lm: "LanguageModel", config: Config, count: int | None = None) -> dict[str, float]:
    """Picks what fills each blank among its candidates; scored as tasks of the kind "choice" are.

        "Never again. It was [MASK]."   great -4.1   terrible -2.7   label: bad   ->  right

    Args:
      lm: the model.
      config: its `data` and `examples` say which files, and how they are read and cut.
      count: examples, the first ones; None: all of the split.

    Returns:
      `accuracy`, by the sum over the tokens of a candidate, its end among them;
      `accuracy_per_token`, by the mean; `standard_error` of the accuracy; `chance`, the mean of 1 /
      candidates; `examples`.

    Raises:
      UserError: the config has no clozes, or in none is known what else may fill the blank.
    """
    if config.examples.format != "cloze":
        raise UserError(
            "the task 'held_out_cloze' is for runs with examples.format='cloze'; the config has "
            f"{config.examples.format!r}"
        )
    if lm.tokenizer is None:
        raise UserError("the task 'held_out_cloze' needs a tokenizer; the checkpoint holds none")
    maker = ClozeMaker(config.examples, lm.tokenizer, lm.config.fills_blanks)
    found = [
        (where, one)
        for where, record in objects_of(config, maker, "eval")
        for one in maker.clozes(record)
        if len(one.candidates) > 1
    ][:count]
    if not found:
        raise UserError(
            "no held-out example has candidates for its blank; examples.verbalizers give them"
        )
    prepared = [_prepared(maker, lm, where, one) for where, one in found]
    outcomes = ask(lm, _SPEC, prepared)
    hits = {name: np.array([one.rows[name][0] for one in outcomes]) for name in _SPEC.metrics}
    return {
        **{name: float(values.mean()) for name, values in hits.items()},
        "standard_error": mean(hits["accuracy"]).error,
        "chance": float(np.mean([1 / len(one.candidates) for _, one in found])),
        "examples": float(len(found)),
    }


def _prepared(maker: ClozeMaker, lm: "LanguageModel", where: str, one: Cloze) -> Prepared:
    """A cloze with each candidate in its blank."""
    pairs = []
    for candidate in one.candidates:
        filled = maker.filled(one, candidate)
        pairs.append(Pair(maker.blanks.prompt(filled), maker.blanks.scored(filled), False))
    right = one.candidates.index(one.answer)
    prompt = f"{filled.before}{filled.blank}{filled.after}"
    example = Example(where, prompt, (one.answer,), one.candidates, right)
    return Prepared(example, pairs=tuple(pairs))
