"""Text in, text out: prompts are encoded as texts are in training, and answers are decoded.

The command `generate` and the methods of `LanguageModel` that take text call these functions.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

import numpy as np

from glm_jax.errors import UserError
from glm_jax.generation.options import (
    CandidateOptions,
    CompleteOptions,
    FillingOptions,
    FillOptions,
    TextOptions,
)
from glm_jax.generation.streaming import GrowingText
from glm_jax.tokenizers.framing import MASK, blanked_ids, causal_prefix, check_blanks
from glm_jax.tokenizers.ids import check_text
from glm_jax.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

_BOLD, _PLAIN = "\033[1m", "\033[0m"
# Options of sampling, with the values at which nothing is sampled.
_NO_SAMPLING = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}

Write = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to fill the blanks of a text.

    Attributes:
      text: the whole text, filled.
      answers: the filling of each blank.
      probability: of the ids of all answers and the end id behind each. An answer that
        max_new_tokens cuts off has no end id.
      ids: of each answer, without the end id.
    """

    text: str
    answers: tuple[str, ...]
    probability: float
    ids: tuple[tuple[int, ...], ...]


class CandidateRecord(TypedDict):
    """A `Candidate` in an `AnswerRecord`."""

    text: str
    answers: list[str]
    probability: float


class AnswerRecord(TypedDict, total=False):
    """The answer to a prompt as JSON; see `answer_record`."""

    prompt: str
    text: str
    answers: list[str]
    candidates: list[CandidateRecord]
    continuation: str


def complete_text(
    model: "LanguageModel",
    prompt: str,
    write: Write,
    bold: bool = False,
    **options: Unpack[TextOptions],
) -> None:
    """Writes the prompt with its blanks filled or, for a causal model, with its continuation.

    Args:
      model: with a tokenizer.
      prompt: any text; for a model that fills blanks, with at least one of `MASKS`.
      write: called with parts of the text; with those of a continuation as they are generated.
      bold: print new text in bold type; False: answers in brackets, a continuation unmarked.
      **options: of `LanguageModel.fill_blanks` and `generate`.

    Raises:
      UserError: no blank in the prompt, a model without a tokenizer, or a text that is too long for
        the model.
    """
    if model.config.continues_texts:
        continue_text(model, prompt, write, bold, **options)
    else:
        write(fill_text(model, prompt, bold, **options))
    write("\n")


def fill_text(
    model: "LanguageModel", prompt: str, bold: bool = False, **options: Unpack[TextOptions]
) -> str:
    """Returns the prompt with its blanks filled, each answer marked.

        the [MASK] is good -> the [light] is good

    Args and errors: see `complete_text`.
    """
    answers = fill_answers(model, prompt, **options)
    marks = (_BOLD, _PLAIN) if bold else ("[", "]")
    return with_answers(_tokenizer(model), prompt, answers, marks)


def fill(model: "LanguageModel", text: str, **options: Unpack[FillOptions]) -> str:
    """`LanguageModel.fill` without candidates; arguments and errors as there."""
    answers = fill_answers(model, text, **options)
    return with_answers(_tokenizer(model), text, answers)


def fill_answers(
    model: "LanguageModel", prompt: str, **options: Unpack[FillOptions]
) -> list[list[int]]:
    """The ids of the answer to each blank of a text; args and errors as of `complete_text`."""
    _, ids = _blanked(model, prompt)
    return model.fill_blanks(ids, **options)


def fill_candidates(
    model: "LanguageModel",
    prompt: str,
    count: int,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    **options: Unpack[CandidateOptions],
) -> list[Candidate]:
    """Several ways to fill the blanks of a text, the most probable first.

    Args:
      model, prompt: see `complete_text`.
      count: most candidates that are returned; of equal texts only the most probable one is.
      num_beams: number of beams; None: twice `count`, since an answer that ends late is overtaken
        by shorter ones before.
      length_penalty: refused: candidates are ordered by probability.
      **options: max_new_tokens, min_new_tokens and no_repeat_ngram of `LanguageModel.fill_blanks`;
        options of sampling are refused unless they have their default value.

    Raises:
      UserError: see `complete_text`; length_penalty, or options of sampling.
    """
    for name, default in _NO_SAMPLING.items():
        if (value := options.get(name, default)) != default:
            raise UserError(
                f"candidates are found by beam search, not sampled: {name} must be {default}; "
                f"got {value}"
            )
    if length_penalty is not None:
        raise UserError(
            "candidates are ordered by their probability; length_penalty is not for them"
        )
    if num_beams is not None and num_beams < count:
        raise UserError(f"{count} candidates need num_beams={count} at least; got {num_beams}")
    tokenizer, ids = _blanked(model, prompt)
    found: dict[tuple[str, ...], Candidate] = {}
    # A cast: mypy does not see that options of sampling are left out. `search_fillings` raises
    # TypeError for unknown ones.
    others = cast(
        FillingOptions, {n: value for n, value in options.items() if n not in _NO_SAMPLING}
    )
    for filling in model.search_fillings(ids, num_beams or 2 * count, **others):
        answers = tuple(_plain(tokenizer, answer) for answer in filling.answers)
        if answers not in found and len(found) < count:
            found[answers] = Candidate(
                with_answers(tokenizer, prompt, filling.answers),
                answers,
                float(np.exp(filling.log_probability)),
                tuple(map(tuple, filling.answers)),
            )
    return list(found.values())


def answer_record(
    model: "LanguageModel",
    prompt: str,
    candidates: int | None = None,
    **options: Unpack[TextOptions],
) -> AnswerRecord:
    """The answer to a prompt as an object for JSON.

        {"prompt": "the [MASK] is", "text": "the light is", "answers": ["light"]}
        {"prompt": "the light", "text": "the light was", "continuation": " was"}

    Args:
      model, prompt, options: see `complete_text`.
      candidates: the number of candidates in a list "candidates", each with text, answers and
        probability; "text" and "answers" of the record are those of the best one. None: no list.
    """
    if candidates is not None:
        # A cast: what is not for candidates, `fill_candidates` refuses.
        found = fill_candidates(model, prompt, candidates, **cast(CandidateOptions, options))
        shown: list[CandidateRecord] = [
            {"text": one.text, "answers": [*one.answers], "probability": one.probability}
            for one in found
        ]
        best = found[0]
        return {
            "prompt": prompt,
            "text": best.text,
            "answers": [*best.answers],
            "candidates": shown,
        }
    if model.config.continues_texts:
        continuation = complete(model, prompt, **options)
        text = prompt.rstrip() + continuation
        return {"prompt": prompt, "text": text, "continuation": continuation}
    answers = fill_answers(model, prompt, **options)
    tokenizer = _tokenizer(model)
    return {
        "prompt": prompt,
        "text": with_answers(tokenizer, prompt, answers),
        "answers": [_plain(tokenizer, ids) for ids in answers],
    }


def with_answers(
    tokenizer: Tokenizer,
    prompt: str,
    answers: Sequence[Sequence[int]],
    marks: tuple[str, str] = ("", ""),
) -> str:
    """The prompt, as it was typed, with its blanks replaced by answers.

    A mask token includes the space on its left (`Tokenizer.encode`). If the vocabulary has tokens
    with spaces (`Tokenizer.carries_spaces`), the answer therefore decides whether a space precedes
    it:

        The [MASK] dog.       ▁quick      The quick dog.
        The dog[MASK] ran.    ▁often      The dog often ran.
        It was good [MASK]    ,▁and       It was good, and

    Args:
      tokenizer: of the answers.
      prompt: see `complete_text`.
      answers: ids, one answer per blank.
      marks: put before and behind each answer.
    """
    text, rest = "", 0
    for match, ids in zip(MASK.finditer(prompt), answers, strict=True):
        before = text + prompt[rest : match.start()]
        text = before.rstrip(" ")
        # Decoding drops a space at the start of a text, but not one behind a special token.
        answer = tokenizer.decode([tokenizer.special.mask, *ids], skip_special=True)
        if not answer.strip() or not tokenizer.carries_spaces:
            space = before[len(text) :]
        else:
            space = " " if answer[0].isspace() and text and not text[-1].isspace() else ""
        text += f"{space}{marks[0]}{answer.strip()}{marks[1]}"
        rest = match.end()
    return text + prompt[rest:].rstrip()


def complete(model: "LanguageModel", text: str, **options: Unpack[CompleteOptions]) -> str:
    """`LanguageModel.complete`; arguments and errors as there."""
    check_text("complete", text, "ids are what lm.generate takes")
    if not model.config.continues_texts:
        raise UserError(
            "this model fills blanks and does not continue texts: write a blank where text is "
            "wanted, lm.fill(text + ' [gMASK]')"
        )
    parts: list[str] = []
    continue_text(model, text, parts.append, **options)
    return "".join(parts[1:])


def continue_text(
    model: "LanguageModel",
    prompt: str,
    write: Write,
    bold: bool = False,
    **options: Unpack[CompleteOptions],
) -> None:
    """Writes the prompt, then its continuation while it is generated.

        the light -> the light was good

    The first call of `write` gets the prompt. Args and errors: see `complete_text`.
    """
    prompt = check_text("prompt", prompt, "ids are what lm.generate takes").rstrip()
    tokenizer = _tokenizer(model)
    text_ids = tokenizer.encode(prompt)
    growing = GrowingText(lambda ids: tokenizer.decode(ids, skip_special=True), text_ids)

    def on_token(row: int, id_: int) -> None:
        if part := growing.push(id_):
            write(part)

    # A beam search has its answer only at the end.
    streams = options.get("num_beams", 1) == 1
    write(prompt + (_BOLD if bold else ""))
    try:
        prompts = [[*causal_prefix(tokenizer), *text_ids]]
        answers = model.generate(prompts, on_token=on_token if streams else None, **options)
        if not streams:
            write("".join(map(growing.push, answers[0])))
        if part := growing.finish():
            write(part)
    finally:
        write(_PLAIN if bold else "")


def _blanked(model: "LanguageModel", prompt: str) -> tuple[Tokenizer, list[int]]:
    """The tokenizer, and the ids of a prompt, both checked, for a model that fills blanks."""
    check_text("fill", prompt, "ids are what lm.fill_blanks takes")
    if model.config.continues_texts:
        raise UserError(
            "this model continues texts and fills no blanks, so it has no candidates either: write "
            "lm.complete(text)"
        )
    check_blanks(prompt)
    tokenizer = _tokenizer(model)
    return tokenizer, blanked_ids(tokenizer, prompt.rstrip())


def _plain(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special=True).strip()


def _tokenizer(model: "LanguageModel") -> Tokenizer:
    if model.tokenizer is None:
        raise UserError("the checkpoint holds no tokenizer; text needs one")
    return model.tokenizer
