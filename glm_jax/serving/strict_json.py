"""JSON of a request, read strictly: what readers differ in, or fail on, is refused.

{"a": 1}                     ->  {"a": 1}
{"a": 1, "a": 2}             ->  JsonError: "a" stands twice in one object
{"a": NaN}, {"a": 1e999}     ->  JsonError: numbers must be finite
{"a": "\\ud800"}             ->  JsonError: half a character
[[[[..]]]]                   ->  JsonError: nested deeper than 64 levels
"""

import json
import math

from glm_jax.errors import short

MAX_DEPTH = 64


class JsonError(ValueError):
    """The text is not such JSON; the message is one sentence."""


def parsed(body: bytes) -> object:
    """The value of a JSON text.

    Raises:
      JsonError: it is none.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_constant=_not_finite,
            parse_float=_finite,
        )
    except JsonError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise JsonError(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError:  # Python reads no int of more than 4300 digits
        raise JsonError("the body holds a number of thousands of digits") from None
    _check(value)
    return value


def _check(value: object) -> None:
    """Looks at all values, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[object] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one)
            elif isinstance(one, dict):
                for key in one:
                    _check_text(key)
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    if any(isinstance(one, dict | list) for one in level):
        raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise JsonError(
            f"the body holds half a character, \\u{ord(text[error.start]):x}, without its other "
            "half"
        ) from None


def _too_deep() -> JsonError:
    return JsonError(f"the body is nested deeper than {MAX_DEPTH} levels")


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(f"{short(key)} stands twice in one object of the body")
            seen.add(key)
    return values


def _not_finite(text: str) -> None:
    raise JsonError(f"numbers of the body must be finite; got {text}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"numbers of the body must be finite; got {short(text)}")
    return number
