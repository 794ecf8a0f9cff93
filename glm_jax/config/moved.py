"""Options that moved to another section, and how their old names are still accepted.

--set model.remat=full           compute.remat=full, and the sentence "model.remat is now .."
ModelConfig(remat="full")        the same; `Config` moves the value to `compute`
ObjectiveConfig(masked_lm=True)  objective.published.masked_lm=True, and such a sentence
run.json of an older version     the same, without the sentence: a record is not written by hand
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar, cast

from glm_jax.errors import UserError, say_once, short

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Field of `ComputeConfig` by the name that it had in `ModelConfig`.
FROM_MODEL = {
    "compute_dtype": "dtype",
    "scan_layers": "scan_layers",
    "remat": "remat",
    "attention_backend": "attention_backend",
}
# Field of `PublishedOptions` by the name that it had in `ObjectiveConfig`.
FROM_OBJECTIVE = {
    "published": "loader",
    "published_length": "row_length",
    "published_rows": "micro_batch_rows",
    "short_sequence_rate": "short_sequence_rate",
    "block_mask_rate": "block_mask_rate",
    "context_mask_ratio": "context_mask_ratio",
    "block_mask_id": "block_mask_id",
    "random_position": "random_position",
    "sentinel_id": "sentinel_id",
    "task_masks": "task_masks",
    "masked_lm": "masked_lm",
}
_MOVED = {f"model.{old}": f"compute.{new}" for old, new in FROM_MODEL.items()} | {
    f"objective.{old}": f"objective.published.{new}" for old, new in FROM_OBJECTIVE.items()
}

Class = TypeVar("Class", bound=type)
Section = TypeVar("Section", bound="DataclassInstance")


def accepts_old_names(section: Class) -> Class:
    """Class decorator: options of `FROM_MODEL` are collected in the argument `moved`."""
    made = section.__init__  # type: ignore[misc]

    @functools.wraps(made)
    def __init__(self: object, *args: object, **options: object) -> None:
        old = [name for name in options if name in FROM_MODEL]
        if old:
            moved = dict(cast(Mapping[str, object], options.get("moved") or {}))
            for name in old:
                _say(f"model.{name}")
                moved[FROM_MODEL[name]] = options.pop(name)
            options["moved"] = moved
        made(self, *args, **options)

    section.__init__ = __init__  # type: ignore[misc]
    return section


def published_in_its_own_part(section: Class) -> Class:
    """Class decorator: options of `FROM_OBJECTIVE` go into `published`, which may be a dict too."""
    made, default = section.__init__, section.published  # type: ignore[misc,attr-defined]
    fields = {field.name for field in dataclasses.fields(section)}

    @functools.wraps(made)
    def __init__(self: object, *args: object, **options: object) -> None:
        published = options.get("published", default)
        if isinstance(published, Mapping):
            options["published"] = published = type(default)(**published)
        part = published if isinstance(published, type(default)) else None
        if part is None and fields <= options.keys():  # `dataclasses.replace` gives all fields
            raise UserError(
                f"objective.published must keep its options; got {short(published)}; write "
                "dataclasses.replace(objective.published, loader=..)"
            )
        kept = set() if part is None else {"published"}
        old = [name for name in options if name in FROM_OBJECTIVE and name not in kept]
        for name in old:
            _say(f"objective.{name}")
        if old:
            moved = {FROM_OBJECTIVE[name]: options.pop(name) for name in old}
            options["published"] = with_fields(part or default, moved)
        made(self, *args, **options)

    section.__init__ = __init__  # type: ignore[misc]
    return section


def moved_of(section: object) -> Mapping[str, object]:
    """The values that a section was given by old names, by field of `ComputeConfig`."""
    return vars(section).get("moved", {})


def with_fields(section: Section, values: Mapping[str, object]) -> Section:
    """A section with the fields of these names replaced; it checks their values itself."""
    return dataclasses.replace(section, **values)


def with_moved(compute: Section, moved: Mapping[str, object]) -> Section:
    """`compute` with the values that were given by their old names.

    Args:
      compute: the `ComputeConfig` that was given.
      moved: values by field of `ComputeConfig`.

    Raises:
      UserError: `compute` has another value, which is not the default.
    """
    default = type(compute)()
    for name, value in moved.items():
        given = getattr(compute, name)
        if given not in (value, getattr(default, name)):
            old = next(old for old, new in FROM_MODEL.items() if new == name)
            raise _clash(f"model.{old}", value, given)
    return with_fields(compute, moved)


def renamed(overrides: Iterable[str]) -> list[str]:
    """Overrides such as "model.remat=full" with the names that options have now.

    Raises:
      UserError: one option has two values, one by its old and one by its new name.
    """
    found = list(overrides)
    given = {name.strip(): value.strip() for name, _, value in (o.partition("=") for o in found)}
    for index, override in enumerate(found):
        name, equals, value = override.partition("=")
        if (new := _MOVED.get(name.strip())) is None:
            continue
        _say(name.strip())
        if given.get(new, value.strip()) != value.strip():
            raise _clash(name.strip(), value.strip(), given[new])
        found[index] = f"{new}{equals}{value}"
    return found


def record_renamed(sections: Mapping[str, object]) -> dict[str, object]:
    """The sections of a `run.json`, with options under the names that they have now.

    An option that a record has by both names stays, and is refused as an unknown one.
    """
    sections = dict(sections)
    model, compute = sections.get("model"), sections.get("compute", {})
    if isinstance(model, Mapping) and isinstance(compute, Mapping):
        sections["model"], sections["compute"] = _taken_out(model, compute, FROM_MODEL)
    objective = sections.get("objective")
    if isinstance(objective, Mapping):
        published = objective.get("published", {})
        if isinstance(published, Mapping):
            objective = {name: value for name, value in objective.items() if name != "published"}
        else:
            published = {}
        rest, published = _taken_out(objective, published, FROM_OBJECTIVE)
        sections["objective"] = {**rest, "published": published}
    return sections


def _taken_out(
    old: Mapping[str, object], new: Mapping[str, object], names: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, object]]:
    """`old` without the options in `names`, and `new` with them; what `new` has stays in `old`."""
    moved = [name for name in names if name in old and names[name] not in new]
    rest = {name: value for name, value in old.items() if name not in moved}
    return rest, {**new, **{names[name]: old[name] for name in moved}}


def _say(old: str) -> None:
    say_once(old, f"{old} is now {_MOVED[old]}; a later version will refuse the old name")


def _clash(old: str, value: object, given: object) -> UserError:
    return UserError(
        f"{old} is now {_MOVED[old]}, and both are given: {short(value)} and {short(given)}; "
        f"give {_MOVED[old]} alone"
    )
