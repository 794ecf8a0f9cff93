"""Text of an answer while its ids come one by one, without half characters."""

from collections.abc import Callable, Sequence

# What decoding gives for bytes that are no character, or not yet.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
# More ids than `_LONGEST` are not decoded each time: the last `_KEPT` of them say how those that
# follow are joined to them.
_LONGEST, _KEPT = 32, 8
# An incomplete character has at most three bytes. What waits behind that many is no character.
_UNFINISHED, _GIVEN_UP = 4, 8


class GrowingText:
    """The text of growing ids, each part once.

        ids    ▁    he   llo  <0xE5>  <0xBA>  <0x8A>
        push        he   llo                  床

    A token may be one byte of a character, and a vocabulary may join pieces at their borders, so
    the last ids are decoded together each time. Text that ends in U+FFFD waits for the next id, and
    so does a text that does not begin with what was passed on.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()):
        """Args:
        decode: the text of ids.
        before: ids in front of the text, which is joined to theirs as they stand.
        """
        self._decode = decode
        self._window = list(before[-_KEPT:])
        self._shown = decode(self._window) if self._window else ""
        if self._shown.endswith(_INCOMPLETE):  # bytes of it may be of a character that begins here
            self._window, self._shown = [], ""

    def push(self, id_: int) -> str:
        """Takes the next id; returns the text that is certain with it."""
        self._window.append(id_)
        text = self._decode(self._window)
        if text.endswith(_INCOMPLETE):
            text = text[:-_UNFINISHED] if text.endswith(_INCOMPLETE * _GIVEN_UP) else ""
        new = self._new(text)
        if len(self._window) > _LONGEST:
            self._shorten()
        return new

    def finish(self) -> str:
        """The text that still waits: bytes that never became a character, as U+FFFD."""
        return self._new(self._decode(self._window))

    def _new(self, text: str) -> str:
        if not text.startswith(self._shown):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new

    def _shorten(self) -> None:
        """Forgets the first ids, where the text of the others alone is the end of that of all."""
        kept = self._window[-_KEPT:]
        text = self._decode(kept)
        if text and text[0] != _INCOMPLETE and self._shown.endswith(text):
            self._window, self._shown = kept, text


class TextStream:
    """Passes the text of growing ids on as `GrowingText` gives it; white space in front is left
    out.

    Attributes:
      ids: so far.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], write: Callable[[str], object]):
        self.ids: list[int] = []
        self._text, self._write, self._begun = GrowingText(decode), write, False

    def push(self, id_: int) -> None:
        """Takes the next id."""
        self.ids.append(id_)
        self._pass_on(self._text.push(id_))

    def finish(self) -> None:
        """Passes on what still waits: bytes that never became a character, as U+FFFD."""
        self._pass_on(self._text.finish())

    def _pass_on(self, new: str) -> None:
        new = new if self._begun else new.lstrip()
        if new:
            self._begun = True
            self._write(new)
