"""Standard input and output of a command, in any locale."""

import codecs
import io
import os
import sys

from glm_jax.errors import UserError


def prepare_streams() -> None:
    """Makes standard streams accept every character, and replaces closed ones by /dev/null.

    Characters outside the encoding of an output are escaped: \\\\u5e8a if it is ASCII.
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
      UserError: it is not in the locale's encoding, which is UTF-8 nearly everywhere.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if buffer is None else _decoded(buffer.read())


def read_line() -> str | None:
    """The next line of standard input without its line end; None at the end of the input.

    Raises:
      UserError: as `read_input`.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    line = sys.stdin.readline() if buffer is None else _decoded(buffer.readline())
    return line.rstrip("\n") if line else None


def _decoded(data: bytes) -> str:
    encoding = codecs.lookup(sys.stdin.encoding or "utf-8").name
    if encoding in ("utf-8", "ascii"):  # UTF-8 includes ASCII
        encoding = "utf-8-sig"  # files from Windows begin with a byte order mark
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is not {_plain_name(encoding)}: byte 0x{data[error.start]:02x} at "
            f"{error.start}; convert it first, for example with iconv -f latin1 -t utf-8"
        ) from error


def _plain_name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()
