"""Answers by likelihood: the kinds "choice" and "last_word".

A choice has the score log p(choice | prompt), summed over its ids:

    accuracy                 the sum
    accuracy_per_token       / number of ids scored, the end id among them
    accuracy_per_character   / number of characters of the choice
    accuracy_unconditional   - the same sum after the prompt `unconditional`

A model that fills blanks scores the choice and the end id as the filling of the blank (GLM, cloze
questions); read from left to right, the choice alone. A causal model scores the choice and the text
behind the blank.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.evaluation.asked import Outcome, Pair, Prepared, hit
from glm_jax.evaluation.examples import Example, Line, column, render, text_in, texts_in
from glm_jax.evaluation.prompting import Prompts
from glm_jax.special_tokens import SPELLINGS

if TYPE_CHECKING:
    from glm_jax.evaluation.task_spec import Spec
    from glm_jax.generation.language_model import LanguageModel

_UNCONDITIONAL = "accuracy_unconditional"
# What is shown of a wrong last word: which one the model would say is not computed.
_OTHER = "(another)"


def example(spec: "Spec", line: Line) -> Example:
    """An example of "choice".

    Raises:
      UserError: a column is missing, choices that are none, or an answer that is not among them.
    """
    where = line[0]
    prompt, inserted = render(line, spec.prompt or "")
    named = spec.choices or ()
    choices = texts_in(line, named) if isinstance(named, str) else named
    if len(choices) < 2 or len(set(choices)) < len(choices) or not all(map(str.strip, choices)):
        raise UserError(f"{where}: choices must be two texts or more, each another; got {choices}")
    right = _right(spec, line, choices)
    return Example(where, prompt, (choices[right],), choices, right, inserted=inserted)


def prepare(prompts: Prompts, spec: "Spec", one: Example) -> Prepared:
    """The prompt with each choice, and `unconditional` with each where that is asked for."""
    blanks = prompts.config.fills_blanks
    if spec.unidirectional and not blanks:
        raise UserError("unidirectional is for models that fill blanks; this one is causal")
    if blanks:
        prompts.check_inert(one)

    def pair(prompt: str, choice: str) -> Pair:
        if spec.unidirectional:
            return prompts.unidirectional(one, prompt, choice)
        return prompts.pair(one, prompt, choice, with_end=True)

    asked = [one.prompt, *([spec.unconditional] if _UNCONDITIONAL in spec.metrics else [])]
    pairs = tuple(pair(prompt, choice) for prompt in asked for choice in one.choices)
    return Prepared(one, pairs=pairs, cut=any(pair.cut for pair in pairs))


def ask(lm: "LanguageModel", spec: "Spec", some: Sequence[Prepared]) -> list[Outcome]:
    """The choices of a model, by each metric; the answer shown is that of the first metric."""
    pairs = [pair for one in some for pair in one.pairs]
    scores = lm.answer_scores(
        [pair.prompt for pair in pairs],
        [pair.answer for pair in pairs],
        unidirectional=spec.unidirectional,
    )
    sums = [float(one.log_probabilities.sum()) for one in scores]
    found, first = [], 0
    for one in some:
        here = slice(first, first + len(one.pairs))
        first = here.stop
        lengths = np.array([len(pair.answer) for pair in one.pairs])
        chosen = _chosen(one.example, np.array(sums[here]), lengths)
        found.append(
            Outcome(
                one.example.choices[chosen[spec.metrics[0]]],
                {name: hit(chosen[name] == one.example.right) for name in spec.metrics},
            )
        )
    return found


def _chosen(one: Example, sums: np.ndarray, lengths: np.ndarray) -> dict[str, int]:
    """The index of the best choice by each metric; of equal ones the first.

    Args:
      one: the example.
      sums, lengths: of its n choices, and again of these after `unconditional`, if that was asked.
    """
    n = len(one.choices)
    characters = np.array([len(choice) for choice in one.choices])
    scores = {
        "accuracy": sums[:n],
        "accuracy_per_token": sums[:n] / lengths[:n],
        "accuracy_per_character": sums[:n] / characters,
    }
    if len(sums) > n:
        scores[_UNCONDITIONAL] = sums[:n] - sums[n:]
    return {name: int(np.argmax(values)) for name, values in scores.items()}


def example_of_last_word(spec: "Spec", line: Line) -> Example:
    """An example of "last_word": a passage, split before its last word.

    Raises:
      UserError: fewer than two words.
    """
    parts = text_in(line, spec.text).rsplit(None, 1)
    if len(parts) < 2:
        raise UserError(f"{line[0]}: a passage needs two words at least; got {short(parts)}")
    context, word = parts
    return Example(line[0], context, (word,), inserted=(context,))


def prepare_last_word(prompts: Prompts, spec: "Spec", one: Example) -> Prepared:
    """The rule of the published evaluation: the blank ends the passage, and no end id is asked for.

    Read from left to right, part A holds [CLS], the first token and [gMASK].
    """
    (word,) = one.references
    if prompts.config.continues_texts:
        if spec.unidirectional:
            raise UserError("unidirectional is for models that fill blanks; this one is causal")
        pair = prompts.pair(one, one.prompt, word, with_end=False)
        return Prepared(one, pairs=(pair,), cut=pair.cut)
    prompts.check_inert(one)
    if not spec.unidirectional:
        text = f"{one.prompt} {SPELLINGS['mask']}"
        pair = prompts.pair(one, text, word, with_end=False)
        return Prepared(one, pairs=(pair,), cut=pair.cut)
    pair = prompts.unidirectional(one, one.prompt, word)
    cls, gmask, *text_ids = pair.prompt
    pair = Pair([cls, *text_ids[:1], gmask, *text_ids[1:]], pair.answer, pair.cut)
    return Prepared(one, pairs=(pair,), cut=pair.cut)


def ask_last_word(lm: "LanguageModel", spec: "Spec", some: Sequence[Prepared]) -> list[Outcome]:
    """Whether the most probable id is right at every id of the word."""
    pairs = [one.pairs[0] for one in some]
    scores = lm.answer_scores(
        [pair.prompt for pair in pairs],
        [pair.answer for pair in pairs],
        unidirectional=spec.unidirectional,
    )
    right = [bool(one.best.all()) for one in scores]
    return [
        Outcome(one.example.references[0] if is_right else _OTHER, {"accuracy": hit(is_right)})
        for one, is_right in zip(some, right, strict=True)
    ]


def _right(spec: "Spec", line: Line, choices: tuple[str, ...]) -> int:
    """The index of the right choice, from its label, its text or its index."""
    where, value = line[0], column(line, spec.answer)
    named = spec.labels or choices
    if len(named) != len(choices):
        raise UserError(
            f"{where}: labels must be one per choice; got {len(named)} for {len(choices)}"
        )
    if isinstance(value, int | str) and str(value) in named:
        return named.index(str(value))
    if type(value) is int and spec.labels is None and 0 <= value < len(choices):
        return value
    allowed = ", ".join(map(repr, named))
    if spec.labels is None:
        allowed += f", or an index from 0 to {len(choices) - 1}"
    raise UserError(
        f"{where}: {spec.answer!r} is {short(value)}, which is not among the "
        f"{'labels' if spec.labels else 'choices'}{did_you_mean(str(value), named)}: {allowed}"
    )
