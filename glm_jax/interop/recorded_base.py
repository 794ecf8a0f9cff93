"""The base of an adapter beside it: a file of ours in a directory of PEFT, which passes over it.

    base.json    {"name": "chatglm3-6b",
                  "fingerprint": {"final_norm/scale": ["float:9b1d0c.."], ..}}

`base_model_name_or_path` in adapter_config.json is only a name; a fingerprint tells whether a model
is the one that the adapter was trained over. Directories that others wrote have none.
"""

import dataclasses
import json
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.json_files import read_object

BASE = "base.json"
# A fingerprint as `glm_jax.adapters.fingerprint` makes it.
Digests = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class RecordedBase:
    """What a directory says of the base.

    Attributes:
      name: for messages.
      fingerprint: of its parameters (`glm_jax.adapters.fingerprint`).
    """

    name: str
    fingerprint: Digests


def write_base(path: Path, base: RecordedBase) -> None:
    """Writes the file into a directory."""
    text = json.dumps(dataclasses.asdict(base), indent=2, ensure_ascii=False) + "\n"
    (path / BASE).write_text(text, encoding="utf-8")


def read_base(path: Path) -> RecordedBase | None:
    """Reads the file of a directory; None if there is none.

    Raises:
      UserError: it holds something else.
    """
    if not (path / BASE).is_file():
        return None
    values = read_object(path / BASE)
    name, found = values.get("name"), values.get("fingerprint")
    if (
        not isinstance(name, str)
        or not isinstance(found, dict)
        or not all(
            isinstance(digests, list) and digests and all(isinstance(d, str) for d in digests)
            for digests in found.values()
        )
    ):
        raise UserError(f"{path / BASE} must hold the name and the fingerprint of a base")
    return RecordedBase(name, found)
