"""What a user gives: special ids, or those of the checkpoint's tokenizer; limits of answers."""

from collections.abc import Iterable, Sequence
from typing import Any

from glm_jax.checks import finite_number, whole_number
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.tokenizer import Tokenizer

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


def check_special_ids(config: ModelConfig, **ids: int | Iterable[int]) -> None:
    """Raises UserError where an id, or one of several `.._ids`, is not of the vocabulary; names it.

    check_special_ids(config, start_id=4, end_ids=[5, 99])
        -> UserError: end_ids must be at least 0 and at most 49; got 99
    """
    for name, value in ids.items():
        if name.endswith("_ids") and not isinstance(value, Iterable):
            raise UserError(f"{name} must be a list of ids; got {value!r}")
        for id_ in value if name.endswith("_ids") else [value]:  # type: ignore[union-attr]
            whole_number(name, id_, 0, config.vocab_size - 1)


def check_length_penalty(value: float) -> float:
    """The value as a float; lengths to a power beyond these would leave float32.

    Raises:
      UserError: no number, or outside of -5..5.
    """
    return finite_number("length_penalty", value, least=-5, most=5)
