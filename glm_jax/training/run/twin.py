"""The local twin of a workdir in a bucket: the files of a run that grow, and what others write.

    gs://b/runs/one/run.json, checkpoints/, ..       written there at once, each file whole
                   /metrics.jsonl, samples.txt, ..   copies of ~/.cache/glm_jax/twins/<hash>/one/..

A bucket has no append. So these files grow on this machine, and are uploaded whole before each
checkpoint is written and at the end. What the bucket has of them is never behind its newest
checkpoint, and what is after that is removed when a run goes on, as always. A local workdir is its
own twin.
"""

import hashlib
import logging
import shutil
from pathlib import Path

from glm_jax.checkpoints.disk import reason
from glm_jax.files import names_below
from glm_jax.paths import cache_directory
from glm_jax.remote import as_remote
from glm_jax.training.distributed import is_first

_LOG = logging.getLogger(__name__)
# Those that a run reads when it goes on.
_READ = ("metrics.jsonl", "samples.txt", "answers.txt", "goodput.jsonl", "wandb.json")


class Twin:
    """To be used by the owner of a workdir alone; does nothing on other processes than the first.

    Attributes:
      directory: where files may grow: of this machine; the workdir itself where that is.
    """

    def __init__(self, workdir: Path):
        """Asks and copies nothing yet."""
        self._remote = as_remote(workdir)
        self.directory = workdir
        # Size and time of each file when it was uploaded.
        self._uploaded: dict[str, tuple[int, int]] = {}
        if self._remote is not None:
            key = hashlib.sha256(str(workdir).encode()).hexdigest()[:16]
            self.directory = cache_directory() / "twins" / key / workdir.name

    def fetch(self) -> None:
        """Begins with what the bucket has; what an earlier start left here is removed.

        Raises:
          OSError: the bucket cannot be read, or this machine's disk cannot be written.
        """
        if self._remote is None or not is_first():
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        for name in _READ:
            if (self._remote / name).is_file():
                (self._remote / name).download(self.directory / name)

    def upload(self) -> None:
        """Writes the files to the bucket that have changed since they were uploaded.

        Raises:
          OSError: the bucket cannot be written.
        """
        if self._remote is None or not is_first():
            return
        for name in names_below(self.directory):
            about = (self.directory / name).stat()
            now = about.st_size, about.st_mtime_ns
            if self._uploaded.get(name) != now:
                (self._remote / name).upload(self.directory / name)
                self._uploaded[name] = now

    def close(self) -> None:
        """`upload`; a failure is only logged, and what was not uploaded stays here."""
        try:
            self.upload()
        except OSError as error:
            _LOG.warning(
                "what has been written since the last checkpoint is not in %s: %s; it is in %s",
                *(self._remote, reason(error), self.directory),
            )
