"""What a task returns that has more to tell than metrics: files in a directory (`--output DIR`)."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.files import write_whole, written


class MetricsWithFiles(dict[str, float]):
    """Metrics, as every task returns them, and files that tell more.

    Attributes:
      texts: content of text files by name.
      pictures: functions that draw a picture into the file that they get, by name.
    """

    def __init__(
        self,
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        pictures: Mapping[str, Callable[[Path], None]],
    ):
        super().__init__(metrics)
        self.texts, self.pictures = dict(texts), dict(pictures)

    def write(self, directory: Path) -> None:
        """Writes all files, each whole; the directory is made, files of other names stay."""
        directory.mkdir(exist_ok=True)
        for name, text in self.texts.items():
            write_whole(directory / name, text)
        for name, draw in self.pictures.items():
            with written(directory / name) as temporary:
                draw(temporary)


def check_output(path: Path | None, is_directory: bool) -> None:
    """Refuses a path at which nothing can be written.

    Args:
      path: of `--output`; None: not given.
      is_directory: a directory of files is written there.

    Raises:
      UserError: no directory to write it in; where a directory is written, a file there, or one
        that cannot be written.
    """
    if path is None:
        return
    if not path.resolve().parent.is_dir():
        raise UserError(f"--output: no directory {str(path.resolve().parent)!r}")
    if not is_directory:
        return
    if path.exists() and not path.is_dir():
        raise UserError(f"--output: {str(path)!r} is a file; a report is written as a directory")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise UserError(f"--output: {str(path)!r} cannot be written")
