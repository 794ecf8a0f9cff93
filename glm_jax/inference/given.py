"""Special ids that a user gives, or that the checkpoint's tokenizer knows."""

from collections.abc import Sequence
from typing import Any

from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import Tokenizer
from glm_jax.special_tokens import SPELLINGS

ENCODE = "lm.tokenizer.encode(text, allow_special=True), which gives ids"


def given(name: str, value: Any, default: Any) -> Any:
    """The value, or the default where it is None.

    Raises:
      UserError: both are None; names the argument.
    """
    if value is None and default is None:
        raise UserError(
            f"the checkpoint has no tokenizer that would say which ids are special; give {name}="
        )
    return default if value is None else value


def check_read(ids: Sequence[int], mask_ids: Sequence[int], tokenizer: Tokenizer | None) -> None:
    """Raises UserError where the ids of a text spell a mask letter by letter, and hold none.

    So does `tokenizer.encode("the [MASK]")`, for text must not turn into blanks unasked.
    """
    if tokenizer is None or set(ids) & set(mask_ids):
        return
    if any(not 0 <= id_ < tokenizer.vocab_size for id_ in ids):
        return
    text = tokenizer.decode(ids)
    spelled = [SPELLINGS[role] for role in ("mask", "gmask", "smask") if SPELLINGS[role] in text]
    if spelled:
        raise UserError(
            f"no blank to fill: {spelled[0]} stands in the text as letters; did you forget "
            "allow_special=True, as in lm.tokenizer.encode(text, allow_special=True)?"
        )
