"""Evaluations without training, by name: each takes a model, its tokenizer, and how many examples.

TASKS["cloze"](lm, lm.tokenizer, 100)    ->    {"accuracy": 0.31, "chance": 0.25, "examples": 100.0}
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from glm_jax.errors import UserError
from glm_jax.inference.evaluation_data import clozes, held_out, last_words
from glm_jax.inference.generation import continues_texts
from glm_jax.inference.language_model import LanguageModel
from glm_jax.inference.texts import blanked_ids, causal_prefix
from glm_jax.interop.tokenizers import Tokenizer

_LONGEST_DOCUMENT = 512  # ids of a document whose perplexity is taken


def cloze(lm: LanguageModel, tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Which of four words fills the blank of a sentence, by the score of the word and its end.

    Raises:
      UserError: a causal model.
    """
    if continues_texts(lm.config):
        raise UserError("the task 'cloze' needs a model that fills blanks; this one is causal")
    right = []
    for one in itertools.islice(clozes(), _checked(examples)):
        ids = blanked_ids(tokenizer, f"{one.before} [MASK]{one.after}")
        answers = [[*tokenizer.encode(choice), tokenizer.special.end] for choice in one.choices]
        scores = lm.score(ids, answers, **_special(tokenizer))
        right.append(int(np.argmax(scores)) == one.answer)
    return {"accuracy": float(np.mean(right)), "chance": 0.25, "examples": float(len(right))}


def last_word(lm: LanguageModel, tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Whether the last word of a passage is what the model would write (as in LAMBADA)."""
    prompts, answers = [], []
    for one in itertools.islice(last_words(), _checked(examples)):
        answers.append(tokenizer.encode(one.word))
        if continues_texts(lm.config):
            prompts.append([*causal_prefix(tokenizer), *tokenizer.encode(one.context)])
        else:
            prompts.append(blanked_ids(tokenizer, f"{one.context} [MASK]"))
    right = lm.predicts(prompts, answers, **_special(tokenizer))
    return {"accuracy": float(np.mean(right)), "examples": float(len(right))}


def perplexity(lm: LanguageModel, tokenizer: Tokenizer, examples: int) -> dict[str, float]:
    """Perplexity of held-out documents, half of them Chinese, from left to right.

    Returns:
      `loss` in nats a token, `perplexity` its exp, `bits_per_byte` of the text, which models with
      other tokenizers share, `tokens` judged, `examples`.
    """
    return _perplexity(lm, tokenizer, examples, bidirectional=False)


def perplexity_bidirectional(
    lm: LanguageModel, tokenizer: Tokenizer, examples: int
) -> dict[str, float]:
    """`perplexity`, what is known of a window seen both ways; for models that fill blanks."""
    return _perplexity(lm, tokenizer, examples, bidirectional=True)


TASKS: dict[str, Callable[[LanguageModel, Tokenizer, int], dict[str, float]]] = {
    "cloze": cloze,
    "last_word": last_word,
    "perplexity": perplexity,
    "perplexity_bidirectional": perplexity_bidirectional,
}


def _perplexity(
    lm: LanguageModel, tokenizer: Tokenizer, examples: int, bidirectional: bool
) -> dict[str, float]:
    special = tokenizer.special
    prefix = causal_prefix(tokenizer) if continues_texts(lm.config) else [special.cls]
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
    judged = np.concatenate(found)
    loss = -float(judged.mean())
    return {
        "loss": loss,
        "perplexity": float(np.exp(loss)),
        "bits_per_byte": -float(judged.sum()) / np.log(2) / size,
        "tokens": float(len(judged)),
        "examples": float(len(texts)),
    }


def _checked(examples: int) -> int:
    if examples < 1:
        raise UserError(f"the number of examples must be at least 1; got {examples}")
    return examples


def _special(tokenizer: Tokenizer) -> dict[str, Any]:
    return {"mask_ids": tokenizer.special.masks, "start_id": tokenizer.special.start}
