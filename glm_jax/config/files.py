"""Config files that export `get_config()`, and dotted overrides.

A config file and how it is loaded:

    # configs/mine.py
    from glm_jax.config import Config, DataConfig, ModelConfig

    def get_config():
        return Config(model=ModelConfig(num_layers=4, embed_dim=256, num_heads=4),
                      data=DataConfig(source="my/*.txt"))

    load_config("configs/mine.py", overrides=["train.num_steps=100", "model.num_layers=2"])
"""

import ast
import dataclasses
import runpy
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path

from glm_jax.config import Config, field_types, from_dict
from glm_jax.config.moved import Section, renamed, with_fields
from glm_jax.config.names import suggestion
from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.json_files import JsonObject, read_object
from glm_jax.paths import expanded

# What mistakes in a config file raise: an unknown name or argument, a missing bracket.
_MISTAKES = (SyntaxError, NameError, ImportError, AttributeError, TypeError)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Runs a config file and applies overrides.

    Args:
      path: a Python file that defines `get_config() -> Config`.
      overrides: dotted assignments such as "train.num_steps=12", checked together.

    Returns:
      The validated Config.

    Raises:
      ValueError: no such file, no `get_config` in it, a mistake in it, an unknown name (the error
        suggests the nearest one), or a value of the wrong type or out of range.
    """
    path = expanded(path)
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise UserError(f"no config file {str(path)!r}{did_you_mean(str(path), near)}")
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if get_config is None:
            raise UserError(f"{path} defines no get_config()")
        config = get_config()
    except _MISTAKES as error:
        raise UserError(f"{path} cannot be used: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(
            f"get_config() of {path} must return a glm_jax.config.Config; "
            f"got {type(config).__name__}"
        )
    return apply_overrides(config, overrides)


def read_run(path: Path) -> tuple[Config, JsonObject]:
    """The config in a `run.json`, and the file's whole content.

    Raises:
      UserError: it is not the record of a run: damaged, or with names, types or values that no
        config has.
    """
    try:
        found = read_object(path)
        return from_dict(found), found
    except UserError as error:
        raise UserError(f"{path} is not the record of a run: {error}") from error


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Returns `config` with dotted assignments applied; see `load_config`."""
    # A section's values are set all at once, so that fields that must agree can change together.
    changes: dict[str, dict[str, object]] = {}
    sections = {field.name: field.type for field in dataclasses.fields(config)}
    for override in renamed(overrides):
        name, equals, text = override.partition("=")
        name, text = name.strip(), text.strip()
        if not equals:
            raise UserError(f"an override is NAME=VALUE; got {override!r}")
        section, dot, key = name.partition(".")
        types_by_key = field_types(getattr(config, section)) if section in sections else {}
        if not dot or key not in types_by_key:
            names = [f"{s}.{k}" for s in sections for k in field_types(getattr(config, s))]
            hint = suggestion(name, names) or "; docs/config.md lists all names"
            raise UserError(f"unknown config name {name!r}{hint}")
        changes.setdefault(section, {})[key] = _parse(name, text, types_by_key[key])
    replaced = {
        section: _with_values(getattr(config, section), values)
        for section, values in changes.items()
    }
    return with_fields(config, replaced)


def _with_values(section: Section, values: Mapping[str, object]) -> Section:
    """A section with options replaced, {"span_rate": 1.0, "published.loader": True}."""
    own = {name: value for name, value in values.items() if "." not in name}
    inner: dict[str, dict[str, object]] = {}
    for name in values.keys() - own.keys():
        part, _, key = name.partition(".")
        inner.setdefault(part, {})[key] = values[name]
    parts = {part: _with_values(getattr(section, part), given) for part, given in inner.items()}
    return with_fields(section, {**own, **parts})


def _parse(name: str, text: str, annotation: object) -> object:
    """Reads `text` as the annotated type; a float takes an int, nothing else does."""
    choices = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    allowed = choices or (annotation,)
    if type(None) in allowed and text.lower() in ("none", "null"):
        return None
    if bool in allowed and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if str in allowed:
        return text.strip("'\"") if text[:1] in "'\"" else text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = text  # not a literal; the last two errors come of deeply nested brackets
    # The ranges of numbers are checked by the sections.
    if type(value) in allowed or (type(value) is int and float in allowed):
        return value
    wanted = " or ".join("None" if t is type(None) else t.__name__ for t in allowed)
    raise UserError(f"{name} takes {wanted}; got {short(text)}")
