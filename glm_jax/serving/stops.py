"""Stop strings: the text of an answer up to the first of them.

    stop ["END"]      push "a E" -> "a "    push "N" -> ""    push "Dx" -> "", found

Text that may be the beginning of a stop string waits until it is or is not.
"""

from collections.abc import Sequence


class StopText:
    """Passes text on until a stop string.

    Attributes:
      found: whether one has been met; nothing is passed on from then.
      length: characters that were passed on.
    """

    def __init__(self, stops: Sequence[str]):
        self.found, self.length = False, 0
        self._stops, self._waiting = tuple(stops), ""

    def push(self, text: str) -> str:
        """Takes more text; returns what is certainly part of the answer."""
        if self.found or not text:
            return ""
        text = self._waiting + text
        # The one that is whole first ends the answer where it begins: as if text came by letters.
        met = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if met:
            self.found, self._waiting = True, ""
            return self._passed(text[: min(met)[1]])
        held = longest_beginning(text, self._stops)
        self._waiting = text[len(text) - held :]
        return self._passed(text[: len(text) - held])

    def skip(self, text: str) -> str:
        """Takes text in which no stop string is looked for."""
        return self.finish() + self._passed(text)

    def finish(self) -> str:
        """The text that waits, when nothing follows."""
        text, self._waiting = self._waiting, ""
        return self._passed(text)

    def _passed(self, text: str) -> str:
        self.length += len(text)
        return text


def longest_beginning(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of a text with which one of the marks begins, but is not whole.

    >>> longest_beginning("a <thi", ["<think>"])
    4
    """
    most = max((len(mark) - 1 for mark in marks), default=0)
    for length in range(min(most, len(text)), 0, -1):
        end = text[len(text) - length :]
        if any(len(mark) > length and mark.startswith(end) for mark in marks):
            return length
    return 0
