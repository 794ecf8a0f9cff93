"""The small files of a model (tokenizer, generation settings), copied along when it is saved.

A downloaded directory may hold links. Links within the hub's cache lead to files of the same model
and are followed. Any other link is left out: it might lead to a private file of the user, which
`save` would copy into a directory that may be published.

    models--A--B/snapshots/<commit>/tokenizer.model -> ../../blobs/<hash>     goes along
    some-model/tokenizer.json -> /home/me/.netrc                              is left out
"""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

from glm_jax.interop.origin import GENERATION, Origin

_LOG = logging.getLogger(__name__)

# A directory with one of these has a tokenizer.
VOCABULARIES = (
    "cog-pretrain.model",
    "ice_text.model",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
# The files of all tokenizers that this package reads and writes.
TOKENIZER_FILES = (
    *VOCABULARIES,
    "added_tokens.json",
    "chat_template.jinja",
    "glm_tokenizer.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
COMPANIONS = tuple(sorted((*TOKENIZER_FILES, "generation_config.json")))


@dataclasses.dataclass(frozen=True)
class Companions:
    """The companion files of a model's directory.

    Attributes:
      files: the files to copy.
      left_out: links that lead out of the directory, which are not copied.
    """

    files: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()

    @classmethod
    def of(cls, directory: Path | None) -> "Companions":
        """The companions in a directory; none for None."""
        if directory is None:
            return cls()
        found = [directory / name for name in COMPANIONS if (directory / name).is_file()]
        return cls(
            tuple(file for file in found if lies_inside(directory, file)),
            tuple(file for file in found if not lies_inside(directory, file)),
        )

    def copy_into(self, directory: Path) -> None:
        """Copies the files; logs a warning for each that is left out."""
        for file in self.files:
            shutil.copyfile(file, directory / file.name)
        for file in self.left_out:
            _LOG.warning(
                "%s is left out: it is a link to %s, outside of its directory", file, file.resolve()
            )


def keep_companions(directory: Path, origin: Origin) -> None:
    """Copies a model's companions into a workdir, and records the ids that end a text."""
    Companions.of(origin.directory).copy_into(directory)
    if origin.eos_ids is not None and origin.generation.get("eos_token_id") is None:
        values = {**origin.generation, "eos_token_id": origin.eos_ids}
        (directory / GENERATION).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def lies_inside(directory: Path, file: Path) -> bool:
    """Whether a file, with links followed, is in a directory or in the hub's cache of its model.

    Args:
      directory: of a model; may be a link itself.
      file: a file of that directory.
    """
    home, target = directory.resolve(), file.resolve()
    if target.is_relative_to(home):
        return True
    # .../models--OWNER--NAME/snapshots/COMMIT and .../models--OWNER--NAME/blobs
    snapshots, model = home.parent, home.parent.parent
    in_cache = snapshots.name == "snapshots" and model.name.startswith("models--")
    return in_cache and target.is_relative_to(model / "blobs")
