"""Runs a plan in a child process, so that a compiler that aborts ends only the child.

XLA ends the whole process when one of its internal checks fails. So the planner runs in a child,
which announces each program before it compiles it. If the child dies, the parent records that
program as failed and starts another child with all results so far. That child repeats the search
without compiling any program twice:

    parent    start                                   start, with A and B
    child     A: 12 ms    B: compiling .. aborts      A: known    B: known, failed    C: 9 ms    end

A child costs one start of Python and jax: one per command, and one more per abort. libtpu may be
loaded by several processes at once (`ALLOW_MULTIPLE_LIBTPU_LOAD`). The parent does not load it, so
that a child may also use the devices of this machine.
"""

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject

# As `plan --json` prints it.
Report = JsonObject
Known = dict[str, Report]
# The kind of a message of the child ("say", "begin", "end", "reports", ..) and its content.
Message = tuple[str, object]
Say = Callable[[str], None]


class Attempts:
    """The reports of programs compiled so far, and the channel to the parent for new ones."""

    def __init__(self, known: Known, tell: Callable[[Message], None]):
        self._known, self._tell = known, tell

    def say(self, text: str) -> None:
        """Sends a line of progress to the parent, which prints it."""
        self._tell(("say", text))

    def report(self, key: str, failed: Report, compile_it: Callable[[], Report]) -> Report:
        """The report of a program: a known one, or else one made now.

        Args:
          key: identifies the program within a command.
          failed: the report to use if the compiler aborts; the parent fills in "failed".
          compile_it: compiles the program and makes the report.
        """
        if key not in self._known:
            self._tell(("begin", (key, failed)))
            self._known[key] = compile_it()
            self._tell(("end", self._known[key]))
        return self._known[key]


def run_apart(plan: Callable[[Attempts], list[Report]], say: Say) -> list[Report]:
    """The result of `plan`, run in a child, and again in a new one after each abort.

    Args:
      plan: must be picklable and deterministic.
      say: prints progress.

    Raises:
      UserError: raised by `plan`.
      ChildFailed: the child raised another exception, or died outside of the compiler.
    """
    known: Known = {}
    spoken: list[str] = []
    while True:
        # A restarted child repeats the lines of the one before it, which are not printed again.
        again = iter(tuple(spoken))

        def say_new(text: str, again: Iterator[str] = again) -> None:
            if next(again, None) is None:
                spoken.append(text)
                say(text)

        with tempfile.TemporaryDirectory(prefix="glm_jax-plan-") as directory:
            said = Path(directory) / "stderr"
            pending, outcome, value, status = _one_child(plan, known, said, say_new)
            text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
        if outcome is None and pending is not None:
            key, failed = pending
            known[key] = {**failed, "failed": f"the compiler failed: {_reason(text, status)}"}
            continue
        sys.stderr.write(text)
        if outcome == "reports":
            return value
        if outcome == "mistake":
            raise UserError(value)
        raise ChildFailed(value or f"the process that plans ended: {_reason(text, status)}")


class ChildFailed(RuntimeError):
    """The child process failed; holds its traceback, or how it ended."""


# `Any`: what the child sent last, of the type that goes with the kind of its message.
def _one_child(
    plan: Callable[[Attempts], list[Report]], known: Known, said: Path, say: Say
) -> tuple[tuple[str, Report] | None, str | None, Any, int | None]:
    """Runs a child: (program being compiled when it ended, kind of result, result, exit status)."""
    # A fork would inherit threads and locks of whatever the parent has loaded.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(plan, known, theirs, str(said)))
    child.start()
    theirs.close()
    pending, outcome, value = None, None, None
    try:
        with contextlib.suppress(EOFError):
            while outcome is None:
                kind, content = ours.recv()
                if kind == "say":
                    say(content)
                elif kind == "begin":
                    pending = content
                elif kind == "end":
                    assert pending is not None
                    known[pending[0]], pending = content, None
                else:
                    outcome, value = kind, content
        child.join()
    finally:
        if child.is_alive():
            child.terminate()
            child.join()
    return pending, outcome, value, child.exitcode


def _work(
    plan: Callable[[Attempts], list[Report]], known: Known, parent: Connection, said: str
) -> None:
    """The main function of the child process."""
    # An abort writes dozens of lines, of which the parent shows one. Core files are not wanted.
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT, 0o600), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    message: Message
    try:
        message = "reports", plan(Attempts(known, parent.send))
    except UserError as error:
        message = "mistake", str(error)
    except KeyboardInterrupt:
        return
    except Exception:
        message = "error", traceback.format_exc()
    parent.send(message)


_CHECK = re.compile(r"^F\d{4} .*?\] (.*)$", re.MULTILINE)


def _reason(text: str, status: int | None) -> str:
    """The first line of what an aborting process wrote, or the signal that ended it."""
    found = _CHECK.search(text)
    if found:
        return found[1].strip()
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        hint = "; this machine may be out of memory" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with status {status}"
