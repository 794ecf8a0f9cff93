"""Reads `data.mixture`, in any of its notations, into components: name, source and rate."""

import dataclasses
import re
from collections.abc import Mapping

from glm_jax.checks import finite_number
from glm_jax.errors import UserError, short

_FORM = '{"NAME": ("SOURCE", RATE), ...} or "NAME=SOURCE@RATE, ..."'
# A name becomes part of a directory's name and of metrics' names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Rates are kept in units of 2^-32; a source with a smaller share would hardly ever be read.
LEAST_SHARE = 1e-6


@dataclasses.dataclass(frozen=True)
class Component:
    """One source of a mixture.

    Attributes:
      name: of the source; names its store and its metrics.
      source: as `DataConfig.source`.
      rate: the source's share of the rows, relative to the other rates.
    """

    name: str
    source: str
    rate: float


def read_mixture(value: object) -> list[Component]:
    """Reads a mixture.

        {"wiki": ("wiki/*.txt", 0.7)}, "wiki=wiki/*.txt@0.7" and [["wiki", "wiki/*.txt", 0.7]]
            -> [Component("wiki", "wiki/*.txt", 0.7)]

    Args:
      value: a mapping, a string, or a sequence of (name, source, rate), as in `run.json`.

    Raises:
      UserError: none of these; a name that occurs twice or is no file name; a rate that is not
        above 0, or is too small compared with the others (`LEAST_SHARE`).
    """
    if isinstance(value, str):
        parts = [_read_part(part.strip()) for part in value.split(",") if part.strip()]
    elif isinstance(value, Mapping):
        parts = [_component((name, *_pair(name, pair))) for name, pair in value.items()]
    elif isinstance(value, list | tuple):
        parts = [_component(part) for part in value]
    else:
        raise _wrong(value)
    names = [part.name for part in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.mixture must name each source once; got {twice[0]!r} twice")
    total = sum(part.rate for part in parts)
    for part in parts:
        if part.rate < LEAST_SHARE * total:
            raise UserError(
                f"data.mixture gives {part.name!r} a share of {part.rate / total:.2g}; the least "
                f"is {LEAST_SHARE:g}"
            )
    return parts


def _read_part(text: str) -> Component:
    name, equals, rest = text.partition("=")
    source, at, rate = rest.rpartition("@")
    if not equals or not at:
        raise _wrong(text)
    return _component((name.strip(), source.strip(), rate.strip()))


def _pair(name: object, pair: object) -> list[object] | tuple[object, ...]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise _wrong({name: pair})
    return pair


def _component(part: object) -> Component:
    if not isinstance(part, list | tuple) or len(part) != 3:
        raise _wrong(part)
    name, source, rate = part
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            "a name in data.mixture must be of letters, digits, '-', '_' and '.' and begin with a "
            f"letter or digit; got {name!r}"
        )
    if not isinstance(source, str) or source in ("", "tfds:", "task:"):
        raise UserError(f"data.mixture must give {name!r} a source; got {source!r}")
    try:
        # In a string the rate is a string too.
        number = finite_number("a rate", float(rate) if isinstance(rate, str) else rate, above=0)
    except ValueError:
        raise UserError(
            f"data.mixture must give {name!r} a rate above 0; got {short(rate)}"
        ) from None
    return Component(name, source, number)


def _wrong(value: object) -> UserError:
    return UserError(f"data.mixture is written {_FORM}; got {value!r}")
