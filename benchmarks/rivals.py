"""Two programs measured in turns, each in a process of its own on the same cores.

A benchmark starts itself once for each side with `--serve SIDE`. A side says its facts in one line
and then does what every line it is sent asks for, and says how long that took:

    servers = {side: Server(side, threads=2) for side in ("jax", "torch")}
    servers["jax"].ask("step")  ->  [0.61, 1.19]      seconds by the clock, and of processor
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


class Server:
    """One side, running.

    Attributes:
      facts: what it said of itself.
    """

    def __init__(self, side: str, threads: int):
        """Starts this program's side on `threads` cores; it warms up while others start."""
        cores = sorted(os.sched_getaffinity(0))[:threads]
        self._process = subprocess.Popen(
            [sys.executable, *sys.argv, "--serve", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self._facts: dict[str, Any] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = self._read()
        return self._facts

    def ask(self, line: str) -> list[float]:
        """Has it do once what the line asks for."""
        assert self.facts is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a side of the benchmark ended; its message is above")
        return json.loads(line)


def answer(run: Callable[[str], Any], facts: dict[str, Any]) -> None:
    """What a side does: says its facts, then runs every line of standard input."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run(line.strip())
        took = [time.perf_counter() - wall, time.process_time() - cpu]
        print(json.dumps(took), flush=True)
