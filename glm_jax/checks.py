"""Checks of config fields and options; each error is one sentence that names the value.

whole_number("top_k", 5, least=0) -> 5
whole_number("top_k", -1, least=0) -> UserError: top_k must be at least 0; got -1
whole_number("top_k", True) -> UserError: top_k must be a whole number; got True
finite_number("top_p", 0.9, above=0, most=1) -> 0.9
finite_number("top_p", nan, above=0) -> UserError: top_p must be a finite number; got nan
"""

import contextlib
import dataclasses
import functools
import math
import operator
import os
import struct
import typing
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, SupportsFloat, SupportsIndex

from glm_jax.errors import UserError, did_you_mean, short

# Steps, ids, positions and counts are int32 on the devices.
LARGEST_INT = 2**31 - 1
# Seeds have two words of 32 bits; see `glm_jax.models.seeds`.
LARGEST_SEED = 2**64 - 1
# Tables of this many entries are made, and lists of this many rows.
LARGEST_TABLE = 2**16


class Section(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]


def check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise UserError(f"{name} must be {allowed}; got {short(value)}")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    choices = list(choices)
    if value not in choices:
        hint = did_you_mean(str(value), map(str, choices))
        raise UserError(f"{name} must be one of {choices}; got {short(value)}{hint}")


def check_rate(name: str, value: float) -> None:
    check(0.0 <= value <= 1.0, name, value, "between 0 and 1")


def whole_number(
    name: str, value: object, least: int = -LARGEST_INT, most: int = LARGEST_INT
) -> int:
    """The value as an int, from an int of Python, numpy or jax.

    Raises:
      UserError: anything else (a boolean and 2.0 too), or outside of least..most; names it.
    """
    number = None
    if isinstance(value, SupportsIndex) and not _is_flag(value):
        with contextlib.suppress(TypeError):
            number = operator.index(value)
    if number is None:
        raise UserError(f"{name} must be a whole number; got {short(value)}")
    check(number >= least, name, number, f"at least {least}")
    check(number <= most, name, number, f"at most {most}")
    return number


def whole_numbers(name: str, values: Iterable[SupportsIndex]) -> list[int]:
    """The values as ints, as by `whole_number`, except that booleans pass as 0 and 1.

    Raises:
      UserError: one of them is something else.
    """
    values = list(values)
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        raise UserError(f"{name} must be whole numbers; got {short(values)}") from None


def finite_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """The value as a float, from a number of Python, numpy or jax.

    Bounds must hold for the value rounded to float32 too, since models compute in it: there
    1 - 1e-9 is not below 1, and 1e-50 is not above 0.

    Raises:
      UserError: a boolean, a string, NaN, infinite (as float32), or out of bounds; names it.
    """
    number = _float(value)
    if number is None or not math.isfinite(rounded := _float32(number)):
        raise UserError(f"{name} must be a finite number; got {short(value)}")
    wanted: list[tuple[str, float | None, Callable[[float, float], bool]]] = [
        ("at least", least, operator.ge),
        ("above", above, operator.gt),
        ("at most", most, operator.le),
        ("below", below, operator.lt),
    ]
    bounds = [(said, bound, holds) for said, bound, holds in wanted if bound is not None]
    allowed = " and ".join(f"{said} {bound:g}" for said, bound, _ in bounds)
    check(all(holds(number, bound) for _, bound, holds in bounds), name, value, allowed)
    in_float32 = all(holds(rounded, _float32(bound)) for _, bound, holds in bounds)
    check(in_float32, name, value, f"{allowed}, as float32 too")
    return number


def check_types(config: Section, section: str, seeds: Iterable[str] = ()) -> None:
    """Converts the fields of a frozen dataclass to their annotated types, or refuses them.

    A float field takes an int, an int field a numpy int, a str field a path. Otherwise a value must
    have the annotated type, or be None where that is allowed. Fields of other types are not
    checked.

    Args:
      config: the dataclass, called from its `__post_init__`.
      section: its name, for errors.
      seeds: names of the fields that take 64 bits.

    Raises:
      UserError: a value of another type, a float that is not finite, an int beyond int32.
    """
    for name, annotation in _annotations(config.__class__).items():
        allowed = typing.get_args(annotation) or (annotation,)
        value = getattr(config, name)
        if not set(allowed) <= {*_READERS, type(None)}:
            continue
        if value is None and type(None) in allowed:
            continue
        full = f"{section}.{name}"
        if name in seeds:
            value = whole_number(full, value, 0, LARGEST_SEED)
        else:
            kind = next(kind for kind in _READERS if kind in allowed)
            value = _READERS[kind](full, value)
        object.__setattr__(config, name, value)


@functools.cache
def _annotations(section: type) -> dict[str, type]:
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def _flag(name: str, value: object) -> bool:
    check(_is_flag(value), name, value, "True or False")
    return bool(value)


def _text(name: str, value: object) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    check(isinstance(value, str), name, value, "a string")
    return str(value)


# Float before int: a field that takes either takes both.
_READERS: dict[type, Callable[[str, object], object]] = {
    bool: _flag,
    float: finite_number,
    int: whole_number,
    str: _text,
}


def _float(value: object) -> float | None:
    if _is_flag(value) or not isinstance(value, SupportsFloat | SupportsIndex):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _float32(number: float) -> float:
    """The nearest float32."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def _is_flag(value: object) -> bool:
    """Whether it is a boolean, also numpy's, which is not imported: a config needs no packages."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
