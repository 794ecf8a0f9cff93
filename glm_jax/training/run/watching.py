"""A parent of each process of a run on several hosts: it says why its child has ended.

    parent    python, no jax        passes signals on, copies standard error, waits
    child     the training          ended by jax's runtime, in C++, when another process is lost

The runtime ends a process without running Python: no message of ours, no `finally`. What the parent
reads in the child's last lines, it says in one sentence, with a status of its own.
"""

import collections
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import IO, NoReturn

from glm_jax.errors import UserError, with_causes
from glm_jax.training import failures

# Status where another process of the run was lost.
LOST = 4
_CHILD = "GLM_JAX_CHILD"
_PR_SET_PDEATHSIG = 1
_KEPT = 200  # last lines of a child in which the reason is looked for
_UNHEALTHY = re.compile(r"unhealthy[^:]*:\s*([\w/:, ]+)")
_AGAIN = "the last checkpoint is whole: start the same command again on all"
# Of gloo, which computes collectives between CPUs.
_BROKEN = re.compile(r"Gloo .*(by peer|[Rr]ead error|[Ww]rite error|[Tt]imed out)", re.DOTALL)
_PATIENCE = 15.0  # beyond lost_after
# Of process 0, which holds the coordinator: killed, or frozen, so that it answers no heartbeat.
_GONE = re.compile(
    r"Socket closed|Connection reset|failed to connect|UNAVAILABLE|CoordinationService/Heartbeat",
    re.IGNORECASE,
)


def is_child() -> bool:
    """Whether this process has such a parent."""
    return _CHILD in os.environ


def end_with_parent() -> None:
    """To be called by the child first: a parent that is killed takes it along (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(process: int, command: Sequence[str] = ()) -> int:
    """Runs this very command again as a child, and returns the status to end with.

    Args:
      process: index of this process in the run, for the sentence.
      command: another one; empty: this process's own.

    Returns:
      The child's own status; `LOST` if the runtime ended it because another process was lost; 128 +
      n if signal n ended it.
    """
    command = command or [sys.executable, *sys.orig_argv[1:]]
    with subprocess.Popen(
        command,
        env={**os.environ, _CHILD: "1"},
        stderr=subprocess.PIPE,
        # Ctrl-C would reach the child twice, from the terminal and from here.
        start_new_session=True,
    ) as child:
        before = {number: signal.signal(number, _passing(child)) for number in _SIGNALS}
        assert child.stderr is not None
        last: collections.deque[str] = collections.deque(maxlen=_KEPT)
        copying = threading.Thread(target=_copy, args=(child.stderr, last), daemon=True)
        copying.start()
        status = child.wait()
        # A grandchild may hold the pipe open; what the child itself wrote has been read by then.
        copying.join(5)
        for number, handler in before.items():
            signal.signal(number, handler)
    if status >= 0:
        return status
    if status == -signal.SIGABRT:
        why = lost("\n".join(last))
        print(f"error: process {process} ends: {why}", file=sys.stderr)
        return LOST
    name = signal.Signals(-status).name
    print(
        f"error: process {process} was ended by {name}; the same command goes on", file=sys.stderr
    )
    return 128 - status


def lost(said: str) -> str:
    """Who was lost, from the last lines of a process that the runtime has ended."""
    if found := _UNHEALTHY.search(said):
        who = ", ".join(re.findall(r"\d+", found[1].rpartition("task:")[2]))
        return f"process {who} was lost (killed, frozen or cut off); {_AGAIN}"
    if _GONE.search(said):
        return f"process 0 was lost (killed, frozen or cut off); {_AGAIN}"
    return f"the runtime ended it (see above); {_AGAIN}"


def run_together(main: Callable[[], int], lost_after: float) -> int:
    """Runs one process of several; an error on one ends all, with its status.

    At a normal exit jax would wait for the others, which may wait for this one.

    Args:
      main: gives the exit status.
      lost_after: seconds until the runtime notices that another process is lost, and ends this one.
        An error of a connection waits for that, since the runtime knows who it was, and so does
        another process's last word.

    Returns:
      A status that all processes have: 0, or 143 and 130, stopped by a signal. Others end the
      process here.
    """
    try:
        status = main()
    except SystemExit:
        raise
    except UserError as error:
        _fail(2, str(error), f"error: {error}")
    except failures.FailedElsewhere as error:
        _fail(1, str(error), f"error: {error}")
    except BaseException as error:
        if not any(_BROKEN.search(str(one)) for one in with_causes(error)):
            _fail(1, f"{type(error).__name__}: {error}", traceback.format_exc().rstrip())
        time.sleep(lost_after + _PATIENCE)
        print(f"error: another process was lost; {_AGAIN}", file=sys.stderr)
        failures.leave(LOST)
    if status not in _AGREED:
        failures.leave(status)  # `failed` has told why
    failures.stop()
    return status


def _fail(status: int, why: str, said: str) -> NoReturn:
    print(said, file=sys.stderr, flush=True)
    sys.stdout.flush()
    failures.tell(status, why)
    failures.leave(status)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AGREED = (0, *(128 + number for number in _SIGNALS))


def _passing(child: subprocess.Popen) -> "signal._HANDLER":
    return lambda number, frame: child.send_signal(number)


def _copy(lines: IO[bytes], last: collections.deque[str]) -> None:
    for line in lines:
        last.append(line.decode(errors="replace").rstrip())
        with contextlib.suppress(OSError):
            os.write(2, line)
