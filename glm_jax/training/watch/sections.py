"""A text file with a section per step, such as `samples.txt`: `step 200`, and lines behind it."""

import re
from pathlib import Path

from glm_jax.files import write_whole


class SectionFile:
    """To be changed by the first process alone."""

    def __init__(self, path: Path):
        """Touches nothing yet."""
        self._path = path

    def rewind(self, step: int) -> None:
        """Removes the sections after `step`, which a run that resumes there will write again."""
        if self._path.exists():
            before = self._path.read_bytes()
            content = _sections_until(before, step)
            if content != before:
                write_whole(self._path, content)

    def has(self, step: int) -> bool:
        """Whether there is a section of a step."""
        return self._path.exists() and step in map(_step, _sections(self._path.read_bytes()))

    def add(self, section: str) -> None:
        """Adds a section, which begins with the line `step N`."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(section)


def _sections_until(content: bytes, step: int) -> bytes:
    """The sections up to a step; as bytes, since only the headings need to be readable."""
    later = [heading.start() for heading in _sections(content) if _step(heading) > step]
    return content[: later[0]] if later else content


def _sections(content: bytes) -> list[re.Match[bytes]]:
    return list(re.finditer(rb"^step (\d{1,18})$", content, re.MULTILINE))


def _step(heading: re.Match[bytes]) -> int:
    return int(heading[1])
