"""Text in, text out: what a person types, framed as the model saw texts in training."""

import re
from collections.abc import Callable
from typing import Any

from glm_jax.errors import UserError
from glm_jax.inference.generation import continues_texts
from glm_jax.inference.language_model import LanguageModel
from glm_jax.interop.tokenizers import Tokenizer
from glm_jax.special_tokens import SPELLINGS

MASKS = [SPELLINGS[role] for role in ("mask", "gmask", "smask")]
_AT_MASKS = re.compile("|".join(map(re.escape, MASKS)))
_BOLD, _PLAIN = "\033[1m", "\033[0m"


def complete_text(
    model: LanguageModel,
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
    if continues_texts(model.config):
        continue_text(model, prompt, write, bold, **options)
    else:
        write(fill_text(model, prompt, bold, **options))
    write("\n")


def fill_text(model: LanguageModel, prompt: str, bold: bool = False, **options: Any) -> str:
    """Returns the prompt with its blanks filled in.

        the [MASK] is good -> the [light] is good

    Args and errors: see `complete_text`.
    """
    check_blanks(prompt)
    prompt = prompt.rstrip()
    tokenizer = _tokenizer(model)
    answers = model.fill_blanks(blanked_ids(tokenizer, prompt), **options)
    texts = iter([tokenizer.decode(ids, skip_special=True).strip() for ids in answers])
    left, right = (_BOLD, _PLAIN) if bold else ("[", "]")
    return _AT_MASKS.sub(lambda _: f"{left}{next(texts)}{right}", prompt)


def continue_text(
    model: LanguageModel,
    prompt: str,
    write: Callable[[str], Any],
    bold: bool = False,
    **options: Any,
) -> None:
    """Writes the prompt and, as it comes, what the model says follows it.

        the light -> the light was good

    Args and errors: see `complete_text`.
    """
    prompt = prompt.rstrip()
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

    write(prompt + (_BOLD if bold else ""))
    try:
        model.generate([[*causal_prefix(tokenizer), *text_ids]], on_token=on_token, **options)
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


def _tokenizer(model: LanguageModel) -> Tokenizer:
    if model.tokenizer is None:
        raise UserError("the checkpoint holds no tokenizer.model, which text needs")
    return model.tokenizer
