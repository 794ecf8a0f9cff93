"""Lines that are typed at a terminal, and Ctrl-C while something runs there."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from glm_jax.errors import UserError


def at_terminal() -> bool:
    """Whether standard input is typed and standard output is read at a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def typed_line(prompt: str) -> str | None:
    """The next line, edited with readline where Python has it; None at the end (Ctrl-D).

    The arrows move within the line and through the lines before it. A character is deleted whole,
    however many bytes and columns it has. Readline drops bytes that begin a character and do not
    end it: the line is what the screen shows.

    Raises:
      UserError: bytes that are not UTF-8; the next line can be read.
      KeyboardInterrupt: Ctrl-C.
    """
    if os.environ.get("LC_ALL") in ("C", "POSIX"):  # there a character would be a byte to readline
        os.environ["LC_ALL"] = "C.UTF-8"
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - `input` uses it once it is imported
    try:
        line = input(prompt)
        line.encode()
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise _not_text(error.object[error.start]) from error
    except UnicodeEncodeError as error:  # Python reads a strange byte b as U+DC00 + b
        raise _not_text(ord(error.object[error.start]) & 0xFF) from error
    return line


def _not_text(byte: int) -> UserError:
    return UserError(
        f"what was typed is not UTF-8: byte 0x{byte:02x}; set the terminal to UTF-8, and type it "
        "again"
    )


@contextlib.contextmanager
def stops_by_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed since the block began, which goes on all the same.

        with stops_by_interrupt() as stop:
            while not stop():
                step()

    For the main thread. An exception instead of a flag would arrive anywhere, within a step too.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
