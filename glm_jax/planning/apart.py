"""Plans made in a process of their own, which a compiler that aborts takes down alone.

XLA ends the whole process where a check of its own fails. So the planner runs in a child, which
says of every program what it is about to compile. Where the child dies, the parent writes that
program down as failed and starts another child with all that is known by then; a search goes the
same way again, and what was compiled before is not compiled twice:

    parent    start                                   start, with A and B
    child     A: 12 ms    B: compiling .. aborts      A: known    B: known, failed    C: 9 ms    end

A child costs what starting Python and jax costs, once a command and once more an abort. libtpu may
be loaded by several processes at once (`ALLOW_MULTIPLE_LIBTPU_LOAD`); the parent loads none, so
that a child may also hold the devices at hand.
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

Report = dict[str, Any]
Known = dict[str, Report]
Say = Callable[[str], None]


class Attempts:
    """What a child knows of programs that were compiled before, and whom it tells of new ones."""

    def __init__(self, known: Known, tell: Callable[[tuple[str, Any]], None]):
        self._known, self._tell = known, tell

    def say(self, text: str) -> None:
        """Progress, for the parent to print."""
        self._tell(("say", text))

    def report(self, key: str, failed: Report, compile_it: Callable[[], Report]) -> Report:
        """The report of a program, known or compiled now.

        Args:
          key: of the program among all of a command.
          failed: its report where the compiler does not survive it; "failed" is filled in.
          compile_it: makes the report.
        """
        if key not in self._known:
            self._tell(("begin", (key, failed)))
            self._known[key] = compile_it()
            self._tell(("end", self._known[key]))
        return self._known[key]


def alone() -> Attempts:
    """Attempts of a process that has no parent to survive it."""
    return Attempts({}, lambda message: None)


def run_apart(plan: Callable[[Attempts], list[Report]], say: Say) -> list[Report]:
    """What `plan` returns, run in a child as often as its compiler aborts.

    Args:
      plan: can be pickled; deterministic.
      say: prints progress.

    Raises:
      UserError: raised by `plan`.
      ChildFailed: any other exception, or a death outside of the compiler.
    """
    known: Known = {}
    spoken: list[str] = []
    while True:
        # A child that starts over says what the one before it said.
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
    """The child's own traceback, or how it ended."""


def _one_child(
    plan: Callable[[Attempts], list[Report]], known: Known, said: Path, say: Say
) -> tuple[tuple[str, Report] | None, str | None, Any, int | None]:
    """(program that was being compiled, how it ended, with what, exit status)."""
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
    """The child."""
    # An abort writes dozens of lines of stack, of which the parent shows one; and no core file.
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT, 0o600), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    message: tuple[str, Any]
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
