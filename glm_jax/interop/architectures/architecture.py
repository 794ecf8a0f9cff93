"""`Architecture`: a family of checkpoints. Also readers for the values of its config.json."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.rows import Row
from glm_jax.json_files import shown

Values = Mapping[str, object]
# Of config.json, where a model has a trained prefix.
PREFIX_KEYS = ("pre_seq_len", "prefix_projection")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A family of checkpoints with the same config keys and the same tensor names.

    Attributes:
      name: for messages.
      names: "original" (of the code the model was published with) or "native" (of transformers).
      config_keys: keys that every config.json of the family has.
      own_keys: further keys that only this family uses; they are dropped when a model is saved in
        another one.
      identity: `architectures` and `model_type` for a new config.json.
      prefixes: prefixes that all tensor names may have; the first is that of the original files.
      marker: part of a tensor name that is found in no family with the same config keys.
      ignored: pattern of the names of tensors that hold no parameters.
      read_config: config.json -> ModelConfig, without dtypes; UserError if it is not supported.
      write_config: the inverse; UserError if the format cannot express the config.
      rows: the key table for a config.
      writes_repeats: whether tensors with `Row.repeats` are written.
      ties_equal: whether the LM head is tied if its tensor equals the token embedding or is
        missing, where config.json does not say.
      requires: a further condition on a config.json that has the keys.
      blanks: config.json -> ((mask ids, the one of [gMASK] last), start id), for models that say
        them there; None: it does not.
      tokenizers: kinds of the tokenizers of its published models
        (`glm_jax.tokenizers.settings.KINDS`); (): any.
      doubt: a warning about a value that `read_config` had to guess; None: no guess.
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
    write_config: Callable[[ModelConfig], dict[str, object]]
    rows: Callable[[ModelConfig], list[Row]]
    writes_repeats: bool = False
    ties_equal: bool = False
    requires: Callable[[Values], bool] = lambda values: True
    blanks: Callable[[Values], tuple[tuple[int, ...], int] | None] = lambda values: None
    tokenizers: tuple[str, ...] = ()
    doubt: Callable[[Values], str | None] = lambda values: None

    def knows(self, values: Values) -> bool:
        """Whether a config.json may belong to this family."""
        return self.config_keys <= values.keys() and self.requires(values)


def whole(values: Values, key: str, default: int | None = None) -> int:
    """A whole number above 0 from config.json; `default` if it is missing or null.

    Raises:
      UserError: another value, one beyond int32, or a missing value without a default.
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
    """A finite number from config.json; `default` if it is missing or null.

    Raises:
      UserError: another value, NaN and infinities included.
    """
    value = values.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key} in config.json must be a number; got {shown(value)}")
    if abs(value) > sys.float_info.max or math.isnan(value):
        raise UserError(f"{key} in config.json must be a finite number; got {shown(value)}")
    return float(value)


def flag(values: Values, key: str, default: bool) -> bool:
    """A boolean from config.json; `default` if it is missing or null.

    Raises:
      UserError: another value.
    """
    value = values.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise UserError(f"{key} in config.json must be true or false; got {shown(value)}")
    return value


def check_fixed(values: Values, supported: Mapping[str, tuple[object, ...]]) -> None:
    """Refuses values of config.json that are not supported.

    Args:
      values: config.json.
      supported: key -> allowed values; a missing key is always allowed.

    Raises:
      UserError: naming the key.
    """
    for key, allowed in supported.items():
        if key in values and values[key] not in allowed:
            raise UserError(
                f"{key}={shown(values[key])} in config.json is not supported; it may be "
                f"{' or '.join(map(repr, allowed))}"
            )


def check_sayable(
    name: str, config: ModelConfig, allowed: Mapping[str, tuple[object, ...]]
) -> None:
    """Refuses a config that a format cannot express.

    Args:
      name: of the format.
      config: of the model to save.
      allowed: field of ModelConfig -> values that the format can express. A prefix is one where
        `prefix_length` stands among them.

    Raises:
      UserError: naming the field.
    """
    resolved = config.resolved()
    if config.prefix_length and "prefix_length" not in allowed:
        raise UserError(
            f"the {name} format has no prefix (model.prefix_length={config.prefix_length}): save "
            "it apart with format='ptuning' or 'peft'"
        )
    if config.value_head:
        raise UserError(
            f"the {name} format has no value head (model.value_head=True): keep the model as a "
            "checkpoint, format='orbax', or save lm.without_value_head()"
        )
    for field, choices in allowed.items():
        value = getattr(resolved, field)
        if value not in choices:
            raise UserError(
                f"the {name} format has model.{field}={' or '.join(map(repr, choices))}; this "
                f"model has {value!r}"
            )


def read_prefix(values: Values, model: ModelConfig) -> ModelConfig:
    """The model with the prefix that a config.json says it has.

    Args:
      values: config.json; `pre_seq_len` missing, null or 0: no prefix.
      model: read from the rest of it.

    Raises:
      UserError: a value of another kind.
    """
    if not values.get("pre_seq_len") and values.get("pre_seq_len") is not False:
        return model
    projected = flag(values, "prefix_projection", False)
    prefix = ModelConfig(
        prefix_length=whole(values, "pre_seq_len"),
        prefix_projection=model.embed_dim if projected else None,
    )
    return model.with_prefix(prefix)


def write_prefix(name: str, config: ModelConfig) -> dict[str, object]:
    """The inverse: the keys of config.json; none for a model without a prefix.

    Args:
      name: of the format, for messages.
      config: of the model.

    Raises:
      UserError: a projection of other widths than the published code has.
    """
    if not config.prefix_length:
        return {}
    projected, model = config.prefix_projection is not None, config.with_sizes()
    published = ModelConfig(
        prefix_length=config.prefix_length,
        prefix_projection=config.embed_dim if projected else None,
    )
    wanted = config.with_prefix(published).with_sizes()
    for field in ("prefix_projection", "prefix_embed_dim"):
        if getattr(model, field) != getattr(wanted, field):
            raise UserError(
                f"the {name} format has model.{field}={getattr(wanted, field)}; this model has "
                f"{getattr(model, field)}"
            )
    return {"pre_seq_len": config.prefix_length, "prefix_projection": projected}
