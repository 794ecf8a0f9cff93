"""How the sections of a config check themselves: one sentence that names field and value."""

from collections.abc import Iterable
from typing import Any

from glm_jax.errors import UserError, did_you_mean


def check(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise UserError(f"{name} must be {allowed}; got {value!r}")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        hint = did_you_mean(str(value), map(str, choices))
        raise UserError(f"{name} must be one of {choices}; got {value!r}{hint}")


def check_rate(name: str, value: float) -> None:
    check(0.0 <= value <= 1.0, name, value, "between 0 and 1")
