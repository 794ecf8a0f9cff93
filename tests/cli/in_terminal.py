"""A process in a terminal of its own: what is typed there reaches it as from a keyboard."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds; the machine may be busy

# Makes the terminal the process's own, so that Ctrl-C becomes a signal, and heeds it, as a shell
# would have it (in a shell's background tests inherit that it is ignored). Becomes the command.
_START = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
CTRL_C, CTRL_D, BACKSPACE, UP, LEFT = b"\x03", b"\x04", b"\x7f", b"\x1b[A", b"\x1b[D"


class Terminal:
    """`python *arguments` in a pseudo-terminal."""

    def __init__(self, *arguments, **variables):
        self._near, far = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            env={**environment, **variables},
        )
        os.close(far)
        self._shown = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._near)

    def type(self, keys):
        """Types text, or bytes as they are."""
        os.write(self._near, keys.encode() if isinstance(keys, str) else keys)

    def interrupt(self):
        """Presses Ctrl-C, and again where nothing comes of it.

        Python overlooks one that comes between a key's echo and its wait for the next key.
        """
        self.type(CTRL_C)
        while not self._shown and not select.select([self._near], [], [], 3)[0]:
            self.type(CTRL_C)

    def until(self, text):
        """What is shown up to and with a text, since the last call."""
        end = time.monotonic() + PATIENCE
        while (at := self._shown.find(text.encode())) < 0:
            assert time.monotonic() < end, f"no {text!r} in {self._shown!r}"
            assert self._read(), f"ended without {text!r}: {self._shown!r}"
        at += len(text.encode())
        shown, self._shown = self._shown[:at], self._shown[at:]
        return shown.decode(errors="replace")

    def anything(self):
        """Waits for something to be shown since the last `until`; False: the process ended."""
        while not self._shown:
            if not self._read():
                return False
        return True

    def status(self):
        """Waits for the end; the exit status, and what was shown since the last `until`."""
        while self._read():
            pass
        return self._process.wait(PATIENCE), self._shown.decode(errors="replace")

    def _read(self):
        """Reads what there is; False at the end."""
        if not select.select([self._near], [], [], PATIENCE)[0]:
            return True
        try:
            data = os.read(self._near, 4096)
        except OSError:  # Linux says so where the other side is closed
            return False
        self._shown = (self._shown + data).replace(b"\r\n", b"\n")
        return bool(data)
