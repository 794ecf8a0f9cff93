"""Standard input and output of a command, whatever the locale."""

import codecs
import io
import os
import sys

from glm_jax.errors import UserError


def prepare_streams() -> None:
    """Lets every character be printed, whatever the terminal knows, and a closed stream be used.

    What standard output cannot show is written as an escape: \\\\u5e8a where it takes ASCII only.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # `<&-` and `>&-`
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def read_input() -> str:
    """All of standard input, as text.

    Raises:
      UserError: it is not in the encoding that is set, which is UTF-8 nearly everywhere.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if buffer is None else _decoded(buffer.read())


def read_line() -> str | None:
    """The next line of standard input without its end, None behind the last; see `read_input`."""
    buffer = getattr(sys.stdin, "buffer", None)
    line = sys.stdin.readline() if buffer is None else _decoded(buffer.readline())
    return line.rstrip("\n") if line else None


def _decoded(data: bytes) -> str:
    encoding = codecs.lookup(sys.stdin.encoding or "utf-8").name
    if encoding in ("utf-8", "ascii"):  # ASCII is part of UTF-8, and texts are more
        encoding = "utf-8-sig"  # Windows begins files with a mark
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is not {_plain_name(encoding)}: byte 0x{data[error.start]:02x} at "
            f"{error.start}; convert it first, for example with iconv -f latin1 -t utf-8"
        ) from error


def _plain_name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()
