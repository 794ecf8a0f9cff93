"""Perplexity of texts, in overlapping windows: the kind "perplexity".

    loss                  sum of losses / tokens scored, in nats
    perplexity            exp(loss)
    perplexity_per_word   exp(sum of losses / (words - 1)), words by white space
    bits_per_byte         sum of losses / ln 2 / bytes of UTF-8, comparable across tokenizers

The first token of a text is given and not scored, as in the published evaluation of language
models, so sums over n - 1 tokens are divided by n - 1.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.checks import whole_number
from glm_jax.errors import UserError
from glm_jax.evaluation.asked import Outcome, Prepared
from glm_jax.evaluation.examples import Example, Line, text_in
from glm_jax.evaluation.prompting import Prompts
from glm_jax.tokenizers.framing import causal_prefix

if TYPE_CHECKING:
    from glm_jax.evaluation.task_spec import Spec
    from glm_jax.generation.language_model import LanguageModel

# Ids of a window where none is given, and one more, as `lm.token_log_probabilities` has it.
LONGEST_ROW = 1024


def example(spec: "Spec", line: Line) -> Example:
    """A text."""
    return Example(line[0], text_in(line, spec.text))


def prepare(prompts: Prompts, spec: "Spec", one: Example) -> Prepared:
    """The ids of a text.

    Raises:
      UserError: bidirectional with a causal model, a text of fewer than two tokens or words, or
        windows that are none.
    """
    if spec.bidirectional and prompts.config.continues_texts:
        raise UserError("bidirectional is for models that fill blanks; this one is causal")
    ids = prompts.tokenizer.encode(one.prompt)
    if len(ids) < 2:
        raise UserError(f"{one.where}: a text needs two tokens at least; got {one.prompt!r}")
    if "perplexity_per_word" in spec.metrics and len(one.prompt.split()) < 2:
        raise UserError(f"{one.where}: perplexity_per_word needs two words at least")
    # As many as the longest row has slots for, beside what begins it.
    most = prompts.config.max_positions - 1
    window = min(most, LONGEST_ROW - 1) if spec.window is None else spec.window
    whole_number("window", window, least=2, most=most)
    if spec.stride is not None:
        whole_number("stride", spec.stride, most=window - 1)
    return Prepared(one, ids)


def ask(lm: "LanguageModel", spec: "Spec", some: Sequence[Prepared]) -> list[Outcome]:
    """The losses of all texts."""
    tokenizer = lm.tokenizer
    assert tokenizer is not None  # without one no prompts were made
    causal = lm.config.continues_texts
    prefix = causal_prefix(tokenizer) if causal else [tokenizer.special.cls]
    found = []
    for one in some:
        scores = lm.token_log_probabilities(
            one.prompt, spec.bidirectional, spec.window, spec.stride, prefix_ids=prefix
        )
        loss, text = -float(scores.astype(np.float64).sum()), one.example.prompt
        size = len(tokenizer.decode(one.prompt[1:]).encode())
        rows = {
            "loss": [loss, len(scores)],
            "perplexity": [loss, len(scores)],
            "perplexity_per_word": [loss, len(text.split()) - 1],
            "bits_per_byte": [loss / np.log(2), size],
        }
        found.append(
            Outcome(
                f"{loss / len(scores):.3f} nats per token of {len(scores):,}",
                {name: np.array(rows[name], np.float64) for name in spec.metrics},
            )
        )
    return found
