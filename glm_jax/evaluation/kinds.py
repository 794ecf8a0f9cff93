"""The kinds of tasks in files, by name: what they ask of their examples and of a model.

    choice       which of some texts fills a blank, or follows, by likelihood
    generate     a text is generated, and compared with right answers
    fill         blanks are filled
    chat         messages are answered, in the model's chat format
    last_word    greedy decoding gives the last word of a passage (LAMBADA)
    perplexity   of texts, in overlapping windows

A kind reads examples without a model, makes prompts for a tokenizer and a model's shape, and then
asks the model; so that what cannot work is refused before a training begins.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from glm_jax.errors import UserError, did_you_mean
from glm_jax.evaluation import answering, choosing, reading
from glm_jax.evaluation.asked import Outcome, Prepared
from glm_jax.evaluation.examples import Example, Line
from glm_jax.evaluation.metrics import TEXT_METRICS
from glm_jax.evaluation.prompting import Prompts

if TYPE_CHECKING:
    from glm_jax.evaluation.task_spec import Spec
    from glm_jax.generation.language_model import LanguageModel

# Keys of every kind.
_COMMON = {"kind", "data", "metrics", "num_examples"}
_COMPARED = ("exact_match", "exact", "f1", "rouge1", "rouge2", "rougeL", "bleu")
_WORDING = {"language", "stemmer"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of task.

    Attributes:
      needs: keys that its files must have, beside kind and data.
      takes: all others that they may have.
      metrics: that there are; "first_5" stands for any number.
      default: metrics where a file names none.
      example: of a line.
      prepare: prompts of an example for a model; refuses what the model cannot do.
      ask: asks a model; outcomes in the order of the examples.
    """

    needs: tuple[str, ...]
    takes: set[str]
    metrics: tuple[str, ...]
    default: tuple[str, ...]
    example: Callable[["Spec", Line], Example]
    prepare: Callable[[Prompts, "Spec", Example], Prepared]
    ask: Callable[["LanguageModel", "Spec", Sequence[Prepared]], list[Outcome]]

    @property
    def keys(self) -> set[str]:
        """All keys of its files."""
        return {*self.needs, *self.takes, *_COMMON}


KINDS: Mapping[str, Kind] = {
    "choice": Kind(
        ("prompt", "choices"),
        {"answer", "labels", "unconditional", "unidirectional"},
        ("accuracy", "accuracy_per_token", "accuracy_per_character", "accuracy_unconditional"),
        ("accuracy", "accuracy_per_token"),
        choosing.example,
        choosing.prepare,
        choosing.ask,
    ),
    "generate": Kind(
        ("prompt",),
        {"answer", "max_new_tokens", "stop", "decoding", *_WORDING},
        _COMPARED,
        ("exact_match", "f1"),
        answering.example,
        answering.prepare_text,
        answering.ask_text,
    ),
    "fill": Kind(
        ("prompt",),
        {"answer", "max_new_tokens", "decoding", *_WORDING},
        ("exact", "exact_match", "f1", "first_5"),
        ("exact",),
        answering.example_of_blanks,
        answering.prepare_blanks,
        answering.ask_blanks,
    ),
    "chat": Kind(
        (),
        {"prompt", "messages", "answer", "max_new_tokens", "stop", "decoding", *_WORDING},
        _COMPARED,
        ("exact_match", "f1"),
        answering.example_of_chat,
        answering.prepare_chat,
        answering.ask_chat,
    ),
    "last_word": Kind(
        (),
        {"text", "unidirectional"},
        ("accuracy",),
        ("accuracy",),
        choosing.example_of_last_word,
        choosing.prepare_last_word,
        choosing.ask_last_word,
    ),
    "perplexity": Kind(
        (),
        {"text", "bidirectional", "window", "stride"},
        ("loss", "perplexity", "perplexity_per_word", "bits_per_byte"),
        ("perplexity", "bits_per_byte"),
        reading.example,
        reading.prepare,
        reading.ask,
    ),
}

assert set(TEXT_METRICS) == set(_COMPARED)


def kind_of(name: object, where: str) -> Kind:
    """A kind by its name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(
            f"{where}: unknown kind {name!r}{did_you_mean(str(name), KINDS)}; there are "
            f"{', '.join(KINDS)}"
        )
    return KINDS[name]
