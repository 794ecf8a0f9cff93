"""Where a model came from: what its directory says beside the weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.interop.architectures.architecture import Architecture
from glm_jax.json_files import read_object, shown

CONFIG, GENERATION = "config.json", "generation_config.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The checkpoint that a model was loaded from, needed to save it under the same names.

    Attributes:
      architecture: of the checkpoint; None for a model that was trained here.
      prefix: in front of every tensor's name.
      values: the content of config.json.
      directory: of the checkpoint; `COMPANIONS` are copied from it.
      generation: the content of generation_config.json; empty if there is none.
    """

    architecture: Architecture | None = None
    prefix: str = ""
    values: Mapping[str, object] = dataclasses.field(default_factory=dict)
    directory: Path | None = None
    generation: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def eos_ids(self) -> list[int] | None:
        """The ids that end a text, from generation_config.json or else config.json; None: neither.

        transformers writes both and reads the first.

        Raises:
          UserError: one of the files gives neither an id nor a list of ids.
        """
        found = [eos_in(GENERATION, self.generation), eos_in(CONFIG, self.values)]
        return next((ids for ids in found if ids is not None), None)

    @property
    def blanks(self) -> tuple[tuple[int, ...], int] | None:
        """((mask ids, the one of [gMASK] last), start id) of a config.json that says them."""
        return self.architecture.blanks(self.values) if self.architecture else None


def read_generation(path: Path) -> dict[str, object]:
    """The content of generation_config.json; empty if there is none.

    Raises:
      UserError: it is damaged, or its eos_token_id is neither an id nor a list of ids.
    """
    if not (path / GENERATION).is_file():
        return {}
    values = read_object(path / GENERATION)
    eos_in(str(path / GENERATION), values)
    return values


def eos_in(file: str, values: Mapping[str, object]) -> list[int] | None:
    """The `eos_token_id` of a file as a list; None where there is none.

    Raises:
      UserError: it is neither an id nor a list of ids.
    """
    given = values.get("eos_token_id")
    if given is None:
        return None
    ids: list[int] = []
    for id_ in given if isinstance(given, list) else [given]:
        if type(id_) is not int or id_ < 0:
            raise UserError(
                f"eos_token_id in {file} must be an id or a list of ids; got {shown(given)}"
            )
        ids.append(id_)
    return ids
