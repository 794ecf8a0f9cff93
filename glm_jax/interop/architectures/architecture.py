"""What a scheme of checkpoints is, and how the values of its config.json are read."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.rows import Row
from glm_jax.json_files import shown

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A family of checkpoints that share config keys and names.

    Attributes:
      name: for messages.
      names: "original" (of the code the model was published with) or "native" (of transformers).
      config_keys: keys that its config.json has.
      own_keys: further keys that only this scheme understands; they stay behind when a model is
        written in another scheme.
      identity: `architectures` and `model_type` of a config.json that is written anew.
      prefixes: what may stand in front of every name; the first is that of the original files.
      marker: part of a tensor's name that tells it from schemes with the same config keys.
      ignored: pattern of the names of tensors that hold no parameters.
      read_config: config.json -> ModelConfig, without dtypes; UserError for what is not supported.
      write_config: the inverse; UserError where the format cannot say it.
      rows: its key table.
      writes_repeats: whether `Row.repeats` are written.
      requires: what else a config.json with these keys must be for it to be this scheme's.
      doubt: what a config.json leaves open and `read_config` takes a guess at, in a sentence.
    """

    name: str
    names: str
    config_keys: frozenset[str]
    own_keys: frozenset[str]
    identity: Values
    prefixes: tuple[str, ...]
    marker: str
    ignored: str
    read_config: Callable[[Values], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    rows: Callable[[ModelConfig], list[Row]]
    writes_repeats: bool = False
    requires: Callable[[Values], bool] = lambda values: True
    doubt: Callable[[Values], str | None] = lambda values: None

    def knows(self, values: Values) -> bool:
        """Whether a config.json may be of this scheme."""
        return self.config_keys <= values.keys() and self.requires(values)


def whole(values: Values, key: str, default: int | None = None) -> int:
    """A whole number of config.json, above 0; `default` where it is missing or null.

    Raises:
      UserError: something else, what is beyond an int32, or nothing and no default.
    """
    value = values.get(key)
    value = default if value is None else value
    if type(value) is not int:
        raise UserError(f"{key} in config.json must be a whole number; got {shown(value)}")
    if not 0 < value < 2**31:
        raise UserError(
            f"{key} in config.json must be between 1 and {2**31 - 1}; got {shown(value)}"
        )
    return value


def number(values: Values, key: str, default: float) -> float:
    """A number of config.json, finite; `default` where it is missing or null.

    Raises:
      UserError: something else, NaN and infinities among it.
    """
    value = values.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key} in config.json must be a number; got {shown(value)}")
    if abs(value) > sys.float_info.max or math.isnan(value):
        raise UserError(f"{key} in config.json must be a finite number; got {shown(value)}")
    return float(value)


def flag(values: Values, key: str, default: bool) -> bool:
    """A true or false of config.json; `default` where it is missing or null.

    Raises:
      UserError: something else.
    """
    value = values.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise UserError(f"{key} in config.json must be true or false; got {shown(value)}")
    return value


def check_fixed(values: Values, supported: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses values of config.json that ask for what no supported model does.

    Args:
      values: config.json.
      supported: key -> what it may be; a missing key is always allowed.

    Raises:
      UserError: naming the key.
    """
    for key, allowed in supported.items():
        if key in values and values[key] not in allowed:
            raise UserError(
                f"{key}={shown(values[key])} in config.json is not supported; it may be "
                f"{' or '.join(map(repr, allowed))}"
            )


def check_sayable(name: str, config: ModelConfig, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses a config that a format has no words for.

    Args:
      name: of the format.
      config: of the model to be written.
      allowed: field of ModelConfig -> what the format can say.

    Raises:
      UserError: naming the field.
    """
    resolved = config.resolved()
    for field, choices in allowed.items():
        value = getattr(resolved, field)
        if value not in choices:
            raise UserError(
                f"the {name} format has model.{field}={' or '.join(map(repr, choices))}; this "
                f"model has {value!r}"
            )
