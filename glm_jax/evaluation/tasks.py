"""Evaluations of a model on small sets of held-out text (`glm_jax.evaluation.data`), by name.

TASKS["cloze"](lm, lm.tokenizer, 100)    ->    {"accuracy": 0.31, "chance": 0.25, "examples": 100.0}
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.errors import UserError
from glm_jax.evaluation.data import (
    Blank,
    blanks,
    clozes,
    held_out,
    last_words,
    training_chapters,
)
from glm_jax.evaluation.examples import Example
from glm_jax.evaluation.ngrams import WordCounts
from glm_jax.evaluation.prompting import Prompts
from glm_jax.tokenizers.framing import blanked_ids, causal_prefix
from glm_jax.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

# Of a model, its tokenizer, and the number of examples.
TaskOnTexts = Callable[["LanguageModel", Tokenizer, int], dict[str, float]]

_LONGEST_DOCUMENT = 512  # ids of a document whose perplexity is computed; the rest is cut off
_CANDIDATES = 5
# Stands for an example in errors; none is raised, since a blank alone fits every model.
_MADE = Example("held-out bundled text", "")
_LONGEST_ANSWER = 12  # ids; two words take six at most


def cloze(lm: "LanguageModel", tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Picks the word that fills a blank out of four, by the score of the word and the end id.

    Raises:
      UserError: a causal model.
    """
    if lm.config.continues_texts:
        raise UserError("the task 'cloze' needs a model that fills blanks; this one is causal")
    right, prompts = [], Prompts(tokenizer, lm.config)
    for one in itertools.islice(clozes(), _checked(examples)):
        ids, _ = prompts.blanked(_MADE, f"{one.before} [MASK]{one.after}")
        answers = [[*tokenizer.encode(choice), tokenizer.special.end] for choice in one.choices]
        scores = lm.score(ids, answers, tokenizer.special.masks, tokenizer.special.start)
        right.append(int(np.argmax(scores)) == one.answer)
    return {"accuracy": float(np.mean(right)), "chance": 0.25, "examples": float(len(right))}


def blanks_filled(lm: "LanguageModel", tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Blanks of one or two words in held-out sentences, filled freely.

    The model is not given the number of words. It is given as much of the text before the sentence
    as its positions have room for. Two n-gram baselines, counted in the training chapters, fill the
    same blanks; they are given the number of words of each.

    Returns:
      Shares of all blanks: `exact`, the most probable filling is the original text; `first_five`,
      one of the five most probable is. `exact_one_word` and `exact_two_words`: `exact` over the
      blanks with so many words, NaN if there are none. `unigram`, `unigram_first_five`, `bigram`,
      `bigram_first_five`: the same shares for the baselines. `examples`: the number of blanks.

    Raises:
      UserError: a causal model.
    """
    if lm.config.continues_texts:
        raise UserError("the task 'blanks' needs a model that fills blanks; this one is causal")
    some = blanks()[: _checked(examples)]
    answers = [one.answer for one in some]
    words = [len(answer.split()) for answer in answers]
    found = [_fillings(lm, tokenizer, one) for one in some]
    by_words, by_pairs = _counted(len(some))
    exact = _hits(found, answers, 1)
    return {
        "exact": _mean(exact),
        "first_five": _mean(_hits(found, answers, _CANDIDATES)),
        "exact_one_word": _mean(hit for hit, n in zip(exact, words, strict=True) if n == 1),
        "exact_two_words": _mean(hit for hit, n in zip(exact, words, strict=True) if n == 2),
        "unigram": _mean(_hits(by_words, answers, 1)),
        "unigram_first_five": _mean(_hits(by_words, answers, _CANDIDATES)),
        "bigram": _mean(_hits(by_pairs, answers, 1)),
        "bigram_first_five": _mean(_hits(by_pairs, answers, _CANDIDATES)),
        "examples": float(len(some)),
    }


@functools.lru_cache(maxsize=1)
def _counted(examples: int) -> tuple[list[list[str]], list[list[str]]]:
    """The fillings of the first blanks by unigrams and by bigrams; the same for every model."""
    counts = WordCounts(training_chapters())
    by_words, by_pairs = [], []
    for one in blanks()[:examples]:
        words = len(one.answer.split())
        by_words.append(counts.unigram(words, _CANDIDATES))
        by_pairs.append(counts.bigram(one.before, one.after, words, _CANDIDATES))
    return by_words, by_pairs


def _fillings(lm: "LanguageModel", tokenizer: Tokenizer, blank: Blank) -> list[str]:
    """A model's five most probable fillings of a blank, the most probable first."""
    text = fitting_prompt(tokenizer, blank, lm.config.max_positions)
    found = lm.fill(text, candidates=_CANDIDATES, max_new_tokens=_LONGEST_ANSWER)
    return [one.answers[0].strip() for one in found]


def _hits(found: list[list[str]], answers: list[str], count: int) -> list[bool]:
    """Whether each answer is among the first `count` fillings of its blank."""
    return [answer in some[:count] for some, answer in zip(found, answers, strict=True)]


def fitting_prompt(tokenizer: Tokenizer, blank: Blank, most_ids: int) -> str:
    """The text around a blank, shortened to at most `most_ids` ids.

    Whole words are dropped, from the front, so that the blank keeps the context next to it:

        "of Noah. The waters rose [MASK] the ark.", 12 ids -> "waters rose [MASK] the ark."
    """
    words = blank.before.split(" ")
    for first in range(len(words)):
        text = f"{' '.join(words[first:])} [MASK]{blank.after}"
        if len(blanked_ids(tokenizer, text)) <= most_ids:
            break
    return text


def last_word(lm: "LanguageModel", tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Whether greedy decoding gives the last word of a passage (as in LAMBADA)."""
    prompts = Prompts(tokenizer, lm.config)
    pairs = [
        prompts.pair(_MADE, f"{one.context} [MASK]", one.word, with_end=False)
        for one in itertools.islice(last_words(), _checked(examples))
    ]
    special, answers = tokenizer.special, [pair.answer for pair in pairs]
    right = lm.predicts([pair.prompt for pair in pairs], answers, special.masks, special.start)
    return {"accuracy": float(np.mean(right)), "examples": float(len(right))}


def perplexity(lm: "LanguageModel", tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Perplexity of held-out documents, half of them Chinese, from left to right.

    Returns:
      `loss` in nats per token, `perplexity` = exp(loss), `bits_per_byte` of UTF-8, which compares
      models with different tokenizers, `tokens`: the number scored, `examples`.
    """
    return _perplexity(lm, tokenizer, examples, bidirectional=False)


def perplexity_bidirectional(
    lm: "LanguageModel", tokenizer: Tokenizer, examples: int
) -> dict[str, float]:
    """`perplexity` with a bidirectional context in each window; for models that fill blanks."""
    return _perplexity(lm, tokenizer, examples, bidirectional=True)


TASKS: dict[str, TaskOnTexts] = {
    "blanks": blanks_filled,
    "cloze": cloze,
    "last_word": last_word,
    "perplexity": perplexity,
    "perplexity_bidirectional": perplexity_bidirectional,
}


def _perplexity(
    lm: "LanguageModel", tokenizer: Tokenizer, examples: int, bidirectional: bool
) -> dict[str, float]:
    special = tokenizer.special
    prefix = causal_prefix(tokenizer) if lm.config.continues_texts else [special.cls]
    found, size = [], 0
    texts = held_out()[: _checked(examples)]
    for text in texts:
        ids = tokenizer.encode(text)[:_LONGEST_DOCUMENT]
        size += len(tokenizer.decode(ids[1:]).encode())
        found.append(
            lm.token_log_probabilities(
                ids,
                bidirectional,
                prefix_ids=prefix,
                mask_id=special.gmask,
                start_id=special.start,
            )
        )
    log_probabilities = np.concatenate(found)
    loss = -float(log_probabilities.mean())
    return {
        "loss": loss,
        "perplexity": float(np.exp(loss)),
        "bits_per_byte": -float(log_probabilities.sum()) / np.log(2) / size,
        "tokens": float(len(log_probabilities)),
        "examples": float(len(texts)),
    }


def _mean(hits: Iterable[bool]) -> float:
    found = list(hits)
    return float(np.mean(found)) if found else float("nan")


def _checked(examples: int) -> int:
    if examples < 1:
        raise UserError(f"the number of examples must be at least 1; got {examples}")
    return examples
