"""Opens a store by its index: what stores of texts and of examples have in common."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject
from glm_jax.special_tokens import SpecialTokens

Store = TypeVar("Store")


def opened_store(
    directory: Path,
    kind: str,
    index_name: str,
    version: int,
    fingerprint: Callable[[JsonObject], str],
    opened: Callable[[Path, JsonObject], Store],
) -> Store:
    """Opens the store of a directory by its index.

    Args:
      directory: of the store.
      kind: what it is, for messages: "token store".
      index_name: the file that tells what the others are.
      version: the format that is read.
      fingerprint: of an index, which holds its own under "fingerprint".
      opened: opens the other files; raises KeyError, TypeError, ValueError or OSError if one does
        not fit.

    Raises:
      UserError: there is no store, or a file of it is missing or damaged.
    """
    if not (directory / index_name).is_file():
        raise UserError(f"no {kind} at {str(directory)!r}: {index_name} is missing")
    try:
        index = json.loads((directory / index_name).read_text(encoding="utf-8"))
        if index["format"] != version:
            raise UserError(
                f"the {kind} {str(directory)!r} is of another version: its format is "
                f"{index['format']}, this version reads {version}; build it anew with "
                "python -m glm_jax.cache --force"
            )
        if index["fingerprint"] != fingerprint(index):
            raise ValueError(f"{index_name} is not what was written")
        return opened(directory, index)
    except (KeyError, TypeError, AttributeError, ValueError, EOFError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise damaged(kind, directory, error) from error


def damaged(kind: str, directory: Path, what: Exception | str) -> UserError:
    """The error of a store that is not what was written."""
    return UserError(
        f"the {kind} {str(directory)!r} is damaged ({what}); remove it, and it is built anew"
    )


def special_tokens_of(index: JsonObject) -> SpecialTokens:
    """The special ids that an index names; raises ValueError for one outside of the vocabulary."""
    special, vocab_size = SpecialTokens(**index["special"]), index["vocab_size"]
    for role, id_ in dataclasses.asdict(special).items():
        if id_ is not None and not (type(id_) is int and 0 <= id_ < vocab_size):
            raise ValueError(f"the id of {role} must lie in 0..{vocab_size - 1}; got {id_!r}")
    return special
