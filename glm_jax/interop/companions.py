"""Small files that belong to a model and go with it from directory to directory.

A directory from somewhere else may hold links. Those of the hub's cache lead to files of the same
model, and are read; what another one leads to might be any file of the user's, which `save` would
put into a directory that is meant to be given away: it is left out.

    models--A--B/snapshots/<commit>/tokenizer.model -> ../../blobs/<hash>     goes along
    some-model/tokenizer.json -> /home/me/.netrc                              is left out
"""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

from glm_jax.interop.checkpoint import GENERATION, Origin

_LOG = logging.getLogger(__name__)

# What tokenizers of this project are read from and saved as, of all kinds.
TOKENIZER_FILES = (
    "cog-pretrain.model",
    "glm_tokenizer.json",
    "merges.txt",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
COMPANIONS = tuple(
    sorted(
        (
            *TOKENIZER_FILES,
            "added_tokens.json",
            "chat_template.jinja",
            "generation_config.json",
            "ice_text.model",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    )
)


@dataclasses.dataclass(frozen=True)
class Companions:
    """The files of a directory that go with its model.

    Attributes:
      files: those that do.
      left_out: links that lead out of the directory.
    """

    files: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()

    @classmethod
    def of(cls, directory: Path | None) -> "Companions":
        """Those of a directory; none of None."""
        if directory is None:
            return cls()
        found = [directory / name for name in COMPANIONS if (directory / name).is_file()]
        return cls(
            tuple(file for file in found if lies_inside(directory, file)),
            tuple(file for file in found if not lies_inside(directory, file)),
        )

    def copy_into(self, directory: Path) -> None:
        """Copies the files, and says which are left out."""
        for file in self.files:
            shutil.copyfile(file, directory / file.name)
        for file in self.left_out:
            _LOG.warning(
                "%s is left out: it is a link to %s, outside of its directory", file, file.resolve()
            )


def keep_companions(directory: Path, origin: Origin) -> None:
    """Puts into a workdir what its model came with, and what ended a text by its config.json."""
    Companions.of(origin.directory).copy_into(directory)
    if origin.eos_ids is not None and origin.generation.get("eos_token_id") is None:
        values = {**origin.generation, "eos_token_id": origin.eos_ids}
        (directory / GENERATION).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def lies_inside(directory: Path, file: Path) -> bool:
    """Whether a file, all links followed, lies in a directory or in the hub's cache of its model.

    Args:
      directory: of a model; may be a link itself.
      file: in it.
    """
    home, target = directory.resolve(), file.resolve()
    if target.is_relative_to(home):
        return True
    # .../models--OWNER--NAME/snapshots/COMMIT and .../models--OWNER--NAME/blobs
    snapshots, model = home.parent, home.parent.parent
    in_cache = snapshots.name == "snapshots" and model.name.startswith("models--")
    return in_cache and target.is_relative_to(model / "blobs")
