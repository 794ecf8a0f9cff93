"""Text of an answer while its ids come one by one, without half characters."""

from collections.abc import Callable, Sequence

# What decoding gives for bytes that are no character, or not yet.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Passes the text of growing ids on, each part once.

        ids   ▁    he   llo  <0xE5>  <0xBA>  <0x8A>
        text       he   llo                  床

    A token may be one byte of a character, and a vocabulary may join pieces at their borders, so
    all ids are decoded each time. Text that ends in U+FFFD waits for the next id, and so does a
    text that does not begin with what was passed on. White space in front is left out.

    Attributes:
      ids: so far.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], write: Callable[[str], object]):
        self.ids: list[int] = []
        self._decode, self._write, self._shown = decode, write, ""

    def push(self, id_: int) -> None:
        """Takes the next id."""
        self.ids.append(id_)
        text = self._text()
        if not text.endswith(_INCOMPLETE):
            self._pass_on(text)

    def finish(self) -> None:
        """Passes on what still waits: bytes that never became a character, as U+FFFD."""
        self._pass_on(self._text())

    def _text(self) -> str:
        return self._decode(self.ids).lstrip()

    def _pass_on(self, text: str) -> None:
        new = text.removeprefix(self._shown)
        if new and text.startswith(self._shown):
            self._write(new)
            self._shown = text
