"""Checks of the ids and texts that callers give: each is refused where the other is meant."""

import contextlib
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import SupportsIndex

import numpy as np

from glm_jax.errors import UserError

_SHOWN = 30  # characters of a value that an error repeats


def id_row(name: str, value: object, instead: str) -> list[int]:
    """The ids of one text, from a list, a tuple or an array [n] of whole numbers.

        id_row("perplexity", "The dog.", "encode(text)")
            -> UserError: perplexity takes ids and got text, 'The dog.'; write encode(text)

    Args:
      name: of the function that takes the ids, for the error.
      value: the value given.
      instead: what to write instead of text, for the error.

    Raises:
      UserError: text, one id alone, a list of lists, numbers that are not whole.
    """
    return [_id(name, one, instead) for one in _items(name, value, instead)]


def id_rows(name: str, value: object, instead: str) -> list[list[int]]:
    """The ids of several texts; arguments and errors as of `id_row`."""
    rows = _items(name, value, instead)
    if rows and _is_number(rows[0]):
        raise UserError(
            f"{name} takes a list of prompts, each a list of ids; got ids alone: write "
            f"[{_short(rows)}]"
        )
    return [id_row(name, row, instead) for row in rows]


def one_or_more(name: str, value: object, instead: str) -> tuple[list[list[int]], bool]:
    """The ids of one text or of several, and whether there are several; see `id_row`."""
    items = _items(name, value, instead)
    several = bool(items) and not _is_number(items[0])
    return ([id_row(name, item, instead) for item in items] if several else
            [id_row(name, items, instead)]), several  # fmt: skip


def check_text(name: str, value: object, instead: str) -> str:
    """The text given, checked.

    Args: as of `id_row`; `instead` is what to write instead of ids.

    Raises:
      UserError: not text, or text with a lone surrogate (from bytes that were not UTF-8).
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            odd = value[error.start]
            raise UserError(
                f"{name} takes text; {odd!r} at {error.start} is not a character but a remnant of "
                "bytes that are not UTF-8"
            ) from error
        return value
    if isinstance(value, bytes):
        raise UserError(f"{name} takes text and got bytes; write text.decode()")
    if isinstance(value, Iterable) and any(isinstance(one, str) for one in value):
        raise UserError(f"{name} takes one text and got several; write a loop over them")
    raise UserError(f"{name} takes text and got {_short(value)}; {instead}")


def _items(name: str, value: object, instead: str) -> list[object]:
    if isinstance(value, str | bytes):
        raise _text_for_ids(name, value, instead)
    if _is_number(value):
        raise UserError(f"{name} takes a list of ids and got one id: write [{value}]")
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    if not isinstance(value, Iterable):
        raise UserError(f"{name} takes a list of ids; got {_short(value)}")
    return list(value)


def _id(name: str, value: object, instead: str) -> int:
    if isinstance(value, SupportsIndex):
        with contextlib.suppress(TypeError):
            return operator.index(value)
    if isinstance(value, str | bytes):
        raise _text_for_ids(name, value, instead)
    what = "a list of lists" if isinstance(value, Iterable) else f"{value!r}"
    raise UserError(f"{name} takes the ids of one text, whole numbers in a list; got {what}")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Number) or getattr(value, "ndim", None) == 0


def _text_for_ids(name: str, value: str | bytes, instead: str) -> UserError:
    return UserError(f"{name} takes ids and got text, {_short(value)}; write {instead}")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} ..."


def ids_behind(encode: Callable[[str], list[int]], before: str, text: str) -> list[int]:
    """The ids of a text as they stand behind another; those of the text by itself where the two
    grow together.

        "It was ", "good"     the ids of "It was good" without those of "It was"
        "un", "do"            those of "do", where "undo" is one token

    Args:
      encode: text -> ids, without special tokens.
      before: the text in front; spaces at its end belong to `text`.
      text: what stands behind.
    """
    alone, whole = encode(before.rstrip(" ")), encode(before + text)
    if whole[: len(alone)] == alone and len(whole) > len(alone):
        return whole[len(alone) :]
    return encode(text)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning.

    >>> shared([1, 2, 3], [1, 2, 4, 3])
    2
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
