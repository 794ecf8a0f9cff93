"""Checks of special ids and numbers that a user gives, and the tokenizer's ids as defaults."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from glm_jax.checks import finite_number, whole_number
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.protocol import Tokenizer

ENCODE = "lm.tokenizer.encode(text, allow_special=True), which gives ids"


Value = TypeVar("Value")


def given(name: str, value: Value | None, default: Value | None) -> Value:
    """`value`, or `default` if it is None.

    Raises:
      UserError: both are None; names the argument.
    """
    found = default if value is None else value
    if found is None:
        raise UserError(
            f"the checkpoint has no tokenizer to take the special ids from; give {name}="
        )
    return found


def check_encoded(ids: Sequence[int], mask_ids: Sequence[int], tokenizer: Tokenizer | None) -> None:
    """Raises UserError if the ids hold no mask id, and decode to a text that spells one.

    `tokenizer.encode("the [MASK]")` gives such ids: it makes special tokens only with
    allow_special=True.
    """
    if tokenizer is None or set(ids) & set(mask_ids):
        return
    if any(not 0 <= id_ < tokenizer.vocab_size for id_ in ids):
        return
    text = tokenizer.decode(ids)
    spelled = [SPELLINGS[role] for role in ("mask", "gmask", "smask") if SPELLINGS[role] in text]
    if spelled:
        raise UserError(
            f"no blank to fill: {spelled[0]} was encoded as plain characters; did you forget "
            "allow_special=True, as in lm.tokenizer.encode(text, allow_special=True)?"
        )


def check_special_ids(config: ModelConfig, **ids: int | Iterable[int]) -> None:
    """Raises UserError if an id, or one of the ids in an argument `.._ids`, is outside 0..V - 1.

    check_special_ids(config, start_id=4, end_ids=[5, 99])
        -> UserError: end_ids must be at least 0 and at most 49; got 99
    """
    for name, value in ids.items():
        if name.endswith("_ids") and not isinstance(value, Iterable):
            raise UserError(f"{name} must be a list of ids; got {value!r}")
        for id_ in value if name.endswith("_ids") else [value]:  # type: ignore[union-attr]
            whole_number(name, id_, 0, config.vocab_size - 1)


def check_length_penalty(value: float) -> float:
    """The value as a float. Beyond -5..5, length^penalty would overflow or underflow float32.

    Raises:
      UserError: not a number, or outside -5..5.
    """
    return finite_number("length_penalty", value, least=-5, most=5)
