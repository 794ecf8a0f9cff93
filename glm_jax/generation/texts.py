"""Text in, text out: what a person types, framed as the model saw texts in training.

The command `generate` and the methods of `LanguageModel` are both this.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_jax.errors import UserError
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.ids import check_text
from glm_jax.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

MASKS = [SPELLINGS[role] for role in ("mask", "gmask", "smask")]
_AT_MASKS = re.compile("|".join(map(re.escape, MASKS)))
_BOLD, _PLAIN = "\033[1m", "\033[0m"
# Options that make draws, with what they are where nothing is drawn.
_NO_DRAWS = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to fill the blanks of a text.

    Attributes:
      text: the whole text, filled.
      answers: what stands in each blank.
      probability: that the model, given the text, writes these ids and ends each answer there; of
        an answer that max_new_tokens cut off, that it begins so.
      ids: of each answer, without the end id.
    """

    text: str
    answers: tuple[str, ...]
    probability: float
    ids: tuple[tuple[int, ...], ...]


def complete_text(
    model: "LanguageModel",
    prompt: str,
    write: Callable[[str], Any],
    bold: bool = False,
    **options: Any,
) -> None:
    """Writes the prompt with its blanks filled in or, of a causal model, with what follows it.

    Args:
      model: with a tokenizer.
      prompt: any text; for a model that fills blanks, with at least one of `MASKS`.
      write: takes pieces of text, those of a continuation as they come.
      bold: mark what is new by bold type instead of brackets.
      **options: of `LanguageModel.fill_blanks`, which are options of `generate` too.

    Raises:
      UserError: no blank in the prompt, a model without a tokenizer, or a text too long for it.
    """
    if model.config.continues_texts:
        continue_text(model, prompt, write, bold, **options)
    else:
        write(fill_text(model, prompt, bold, **options))
    write("\n")


def fill_text(model: "LanguageModel", prompt: str, bold: bool = False, **options: Any) -> str:
    """Returns the prompt with its blanks filled in, and marked.

        the [MASK] is good -> the [light] is good

    Args and errors: see `complete_text`.
    """
    answers = fill_answers(model, prompt, **options)
    marks = (_BOLD, _PLAIN) if bold else ("[", "]")
    return with_answers(_tokenizer(model), prompt, answers, marks)


def fill(
    model: "LanguageModel", text: str, candidates: int = 1, **options: Any
) -> str | list[Candidate]:
    """`LanguageModel.fill`, which says what it takes and gives."""
    if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 1:
        raise UserError(f"candidates must be a whole number, at least 1; got {candidates!r}")
    if candidates == 1:
        answers = fill_answers(model, text, **options)
        return with_answers(_tokenizer(model), text, answers)
    return fill_candidates(model, text, candidates, **options)


def fill_answers(model: "LanguageModel", prompt: str, **options: Any) -> list[list[int]]:
    """The ids of the answer to each blank of a text; args and errors as of `complete_text`."""
    _, ids = _blanked(model, prompt)
    return model.fill_blanks(ids, **options)


def fill_candidates(
    model: "LanguageModel",
    prompt: str,
    count: int,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    **options: Any,
) -> list[Candidate]:
    """Several ways to fill the blanks of a text, the most probable first.

    Args:
      model, prompt: see `complete_text`.
      count: the most that are returned; texts that read alike come once.
      num_beams: how many are followed; None: twice `count`, for the best end may come late.
      length_penalty: refused; probability alone decides.
      **options: max_new_tokens, min_new_tokens and no_repeat_ngram, of
        `LanguageModel.fill_blanks`; others are refused where they ask for something.

    Raises:
      UserError: see `complete_text`; options of drawing.
    """
    for name, nothing in _NO_DRAWS.items():
        value = options.pop(name, nothing)
        if value != nothing:
            raise UserError(
                f"candidates are searched for and not drawn: {name} must be {nothing}; got {value}"
            )
    if length_penalty is not None:
        raise UserError(
            "candidates are in the order of their probability; length_penalty is not for them"
        )
    if num_beams is not None and num_beams < count:
        raise UserError(f"{count} candidates need num_beams={count} at least; got {num_beams}")
    tokenizer, ids = _blanked(model, prompt)
    found: dict[tuple[str, ...], Candidate] = {}
    for filling in model.search_fillings(ids, num_beams or 2 * count, **options):
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
    model: "LanguageModel", prompt: str, candidates: int | None = None, **options: Any
) -> dict[str, Any]:
    """What became of a prompt, for programs.

        {"prompt": "the [MASK] is", "text": "the light is", "answers": ["light"]}
        {"prompt": "the light", "text": "the light was", "continuation": " was"}

    Args:
      model, prompt, options: see `complete_text`.
      candidates: so many in a list "candidates", each with text, answers and probability, the best
        of which is the record's own text; None: no such list.
    """
    if candidates is not None:
        found = fill_candidates(model, prompt, candidates, **options)
        shown = [
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
        new = complete(model, prompt, **options)
        return {"prompt": prompt, "text": prompt.rstrip() + new, "continuation": new}
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
    """The prompt, as it was typed, with answers in the place of its blanks.

    A mask has swallowed the space on its left (`Tokenizer.encode`), so whether one stands there is
    for the answer to say, where its tokens carry spaces:

        The [MASK] dog.       ▁quick      The quick dog.
        The dog[MASK] ran.    ▁often      The dog often ran.
        It was good [MASK]    ,▁and       It was good, and

    Args:
      tokenizer: of the answers.
      prompt: see `complete_text`.
      answers: ids, one answer a blank.
      marks: put around each answer.
    """
    text, rest = "", 0
    for match, ids in zip(_AT_MASKS.finditer(prompt), answers, strict=True):
        before = text + prompt[rest : match.start()]
        text = before.rstrip(" ")
        # Behind a special token a tokenizer keeps the space in front of a word.
        answer = tokenizer.decode([tokenizer.special.mask, *ids], skip_special=True)
        if not answer.strip() or not tokenizer.carries_spaces:
            gap = before[len(text) :]
        else:
            gap = " " if answer[0].isspace() and text and not text[-1].isspace() else ""
        text += f"{gap}{marks[0]}{answer.strip()}{marks[1]}"
        rest = match.end()
    return text + prompt[rest:].rstrip()


def complete(model: "LanguageModel", text: str, **options: Any) -> str:
    """`LanguageModel.complete`, which says what it takes and gives."""
    check_text("complete", text, "ids are what lm.generate takes")
    if not model.config.continues_texts:
        raise UserError(
            "this model fills blanks and does not continue texts: write a blank where text is "
            "wanted, lm.fill(text + ' [gMASK]')"
        )
    pieces: list[str] = []
    continue_text(model, text, pieces.append, **options)
    return "".join(pieces[1:])


def continue_text(
    model: "LanguageModel",
    prompt: str,
    write: Callable[[str], Any],
    bold: bool = False,
    **options: Any,
) -> None:
    """Writes the prompt and, as it comes, what the model says follows it.

        the light -> the light was good

    The first piece is the prompt. Args and errors: see `complete_text`.
    """
    prompt = check_text("prompt", prompt, "ids are what lm.generate takes").rstrip()
    tokenizer = _tokenizer(model)
    text_ids = tokenizer.encode(prompt)
    shown = len(tokenizer.decode(text_ids))
    new: list[int] = []

    def on_token(row: int, id_: int) -> None:
        nonlocal shown
        new.append(id_)
        text = tokenizer.decode([*text_ids, *new], skip_special=True)
        # The bytes of a character may come one by one; half of one is not shown.
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            write(text[shown:])
            shown = len(text)

    # A search knows its answer at the end only.
    streams = options.get("num_beams", 1) == 1
    write(prompt + (_BOLD if bold else ""))
    try:
        prompts = [[*causal_prefix(tokenizer), *text_ids]]
        answers = model.generate(prompts, on_token=on_token if streams else None, **options)
        if not streams:
            write(tokenizer.decode([*text_ids, *answers[0]], skip_special=True)[shown:])
    finally:
        write(_PLAIN if bold else "")


def blanked_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a text with blanks as training has them: [CLS], the text, eos.

    There is no eos where the text goes on: after a [gMASK] at its end (the published rule).
    """
    ids = [tokenizer.special.cls, *tokenizer.encode(prompt, allow_special=True)]
    return ids if ids[-1] == tokenizer.special.gmask else [*ids, tokenizer.special.eos]


def causal_prefix(tokenizer: Tokenizer) -> list[int]:
    """What stands in front of every text of a causal model: [gMASK] and the start token."""
    return [tokenizer.special.gmask, tokenizer.special.start]


def check_blanks(prompt: str) -> None:
    """Raises UserError where there is nothing to fill."""
    if not _AT_MASKS.search(prompt):
        raise UserError(f"no blank in the prompt; write {', '.join(MASKS[:-1])} or {MASKS[-1]}")


def _blanked(model: "LanguageModel", prompt: str) -> tuple[Tokenizer, list[int]]:
    """The tokenizer, and the ids of a prompt that is good for a model that fills blanks."""
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
        raise UserError("the checkpoint holds no tokenizer.model, which text needs")
    return model.tokenizer
