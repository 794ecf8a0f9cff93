"""Two processes train together, and one is killed, frozen or stopped; run by test_pods.py.

    python tests/killed_of_two.py DIRECTORY KILLS SEED

Each process is what `train` is on several hosts, a parent and its child, but forked, so that it
costs a second instead of ten. SIGKILL and SIGSTOP hit the child, or SIGKILL the parent; SIGTERM
goes to the parent. After each: the statuses and sentences of both, every checkpoint whole, and
no process left. Then both start again. A run that comes to its end must have the losses and
parameters of one that nothing disturbed, to the last bit; then another begins, until so many were
killed. Prints each moment, and one JSON line last.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import matplotlib.figure  # noqa: F401 - so that no fork imports it
import numpy as np
import tiny_run

from glm_jax import cli
from glm_jax.checkpoints.checksums import damage
from glm_jax.checkpoints.params import load_params
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.training.joining import Network, join
from glm_jax.training.loop import train
from glm_jax.training.run import watching
from glm_jax.training.run.interrupts import ending_at_once
from tests.free_port import free_port

NUM_STEPS = 40
LOST_AFTER = 10
LIMIT = 300  # seconds an attempt may take, on however busy a machine
_SUBREAPER = 36  # orphans come to this process, as to init


class Run:
    """Two parents and their children, on one workdir."""

    def __init__(self, directory: Path):
        self.directory, self.workdir = directory, directory / "run"
        directory.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port()}"
        self.began = time.monotonic()
        for index in range(2):
            (directory / f"{index}.pid").unlink(missing_ok=True)
            (directory / f"{index}.log").unlink(missing_ok=True)
        self.parents = [self._fork(index, address) for index in range(2)]
        self.statuses: dict[int, int] = {}

    def _fork(self, index: int, address: str) -> int:
        pid = os.fork()
        if pid:
            return pid
        log = os.open(self.directory / f"{index}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)

        class Forked:
            """Stands for `subprocess.Popen`: runs this script's training in a fork."""

            def __init__(self, command, env, stderr, start_new_session):
                assert (stderr, start_new_session) == (subprocess.PIPE, True)
                read, write = os.pipe()
                self.pid = os.fork()
                if self.pid == 0:
                    os.setsid()
                    watching.subprocess.Popen = popen
                    os.dup2(write, 2)
                    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                    os.close(read)
                    with ending_at_once():
                        watching.end_with_parent()
                        (outer.directory / f"{index}.pid").write_text(str(os.getpid()))
                        cli.run(lambda: outer.child(index, address))
                os.close(write)
                self.stderr = os.fdopen(read, "rb")

            __enter__ = lambda self: self  # noqa: E731
            __exit__ = lambda self, *error: self.stderr.close()  # noqa: E731

            def wait(self):
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

            def send_signal(self, number):
                os.kill(self.pid, number)

        outer, popen = self, subprocess.Popen
        watching.subprocess.Popen = Forked
        cli.run(lambda: watching.watch(index))

    def child(self, index: int, address: str) -> int:
        """What a process of the run does."""
        jax.config.update("jax_num_cpu_devices", 2)
        config = tiny_run.change_fields(
            tiny_run.tiny_config(),
            train={"num_steps": NUM_STEPS, "checkpoint_every": 3, "eval_every": 10},
            mesh={"data": 2, "fsdp": 2},
        )

        def batches(split, shard_index, num_shards):
            time.sleep(0.01)
            return tiny_run.Stream(0 if split == "train" else 10_000, shard_index, num_shards)

        def main() -> int:
            join(Network(address, 2, index), {}, timeout=20, lost_after=LOST_AFTER, say=print_error)
            return train(config, self.workdir, batches, tiny_run.LetterTokenizer())

        return watching.run_together(main, LOST_AFTER)

    def poll(self) -> bool:
        """Whether both have ended."""
        for index, pid in enumerate(self.parents):
            if index not in self.statuses and (found := os.waitpid(pid, os.WNOHANG))[0]:
                self.statuses[index] = os.waitstatus_to_exitcode(found[1])
        if time.monotonic() - self.began > LIMIT:
            self.end()
            raise SystemExit(f"an attempt took too long: {self.statuses}\n{self.logs()}")
        time.sleep(0.005)
        return len(self.statuses) == 2

    def end(self) -> None:
        for pid in [*self.parents, *self.children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self, until=lambda: False) -> bool:
        """Waits until a condition holds or both have ended; returns whether they have."""
        while not until():
            if self.poll():
                return True
        return False

    def children(self) -> list[int]:
        found = [self.directory / f"{index}.pid" for index in range(2)]
        return [int(path.read_text()) for path in found if path.exists() and path.read_text()]

    def logs(self) -> list[str]:
        found = [self.directory / f"{index}.log" for index in range(2)]
        return [path.read_text(errors="replace") if path.exists() else "" for path in found]

    def rows(self) -> int:
        path = self.workdir / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def outcome(self) -> dict:
        """The losses and the parameters of a run that is done."""
        rows = [json.loads(line) for line in (self.workdir / "metrics.jsonl").open()]
        kept = [{k: v for k, v in row.items() if k.partition("/")[0] in KEPT} for row in rows]
        # A save's own row, of times alone, is there for each stop too.
        return {"rows": [row for row in kept if len(row) > 1], "parameters": digest(self.workdir)}


KEPT = {"step", "loss", "eval", "grad_norm", "learning_rate"}


def print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def digest(workdir: Path) -> str:
    """Of all parameters; in a fork, since jax's threads do not survive later ones."""
    read, write = os.pipe()
    if os.fork() == 0:
        found = hashlib.sha256()
        for leaf in jax.tree.leaves(load_params(workdir)[1]):
            found.update(np.asarray(leaf).tobytes())
        os.write(write, found.hexdigest().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def strike(run: Run, what: str, victim: int) -> None:
    """Kills, freezes or stops a process of the run, and waits for both ends."""
    pids = run.children()
    if what == "SIGTERM":
        os.kill(run.parents[victim], signal.SIGTERM)
    elif what == "SIGKILL of the parent":
        os.kill(run.parents[victim], signal.SIGKILL)
    else:
        os.kill(pids[victim], signal.SIGKILL if what == "SIGKILL" else signal.SIGSTOP)
    if what == "SIGSTOP":
        run.wait(lambda: 1 - victim in run.statuses)
        os.kill(pids[victim], signal.SIGKILL)
    run.wait()


def check(run: Run, what: str, victim: int) -> None:
    """Whether both ended as they should."""
    logs, own, other = run.logs(), run.statuses[victim], run.statuses[1 - victim]
    said = [log.strip().splitlines()[-1] if log.strip() else "" for log in logs]
    done = NUM_STEPS in saved_steps(run.workdir / "checkpoints")
    if what == "SIGTERM":
        good = own == other == 143 or (done and own == other == 0)
        before = f"process {victim} has ended the run: SIGTERM before its first step"
        said_so = before in logs[1 - victim] or "stopped by SIGTERM; step" in logs[0]
        good = good and (done or said_so)
    else:
        good = own == {"SIGKILL of the parent": -9}.get(what, 137)
        named = f"error: process {1 - victim} ends: process {victim} was lost" in said[1 - victim]
        good = good and ((other == 4 and named) or (done and other in (0, 4)))
    if not good:
        raise SystemExit(f"{what} of process {victim}: {run.statuses}\n" + "\n====\n".join(logs))
    left = [pid for pid in [*run.parents, *run.children()] if alive(pid)]
    if left:
        raise SystemExit(f"{what} of process {victim} left the processes {left}")
    for step in saved_steps(run.workdir / "checkpoints"):
        trouble = damage(run.workdir / "checkpoints" / str(step), read=True)
        if trouble:
            raise SystemExit(f"{what} of process {victim} damaged a checkpoint: {trouble}")


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    directory, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    draws = random.Random(seed)
    Run(directory / "compiles").wait()
    whole = Run(directory / "whole")
    whole.wait(whole.rows)
    first = time.monotonic()
    whole.wait()
    within = time.monotonic() - first
    assert whole.statuses == {0: 0, 1: 0}, whole.logs()
    expected = whole.outcome()
    kinds = ["SIGKILL", "SIGKILL", "SIGSTOP", "SIGTERM", "SIGTERM", "SIGKILL of the parent"]
    killed, runs = 0, 0
    while killed < kills or (directory / f"run{runs}").exists():
        run = Run(directory / f"run{runs}")
        what, victim, early = draws.choice(kinds), draws.randrange(2), draws.random() < 0.2
        moment = draws.uniform(0, 1 if early else within / 3)
        rows = run.rows()
        # From when the network is there, or from the first row that this attempt writes.
        joined = lambda r=run: all(f"process {i} of 2, " in r.logs()[i] for i in range(2))  # noqa: E731
        done = run.wait((lambda: False) if killed >= kills else joined)
        if not done and not early:
            done = run.wait(lambda r=run, n=rows: r.rows() > n)
        if not done:
            end = time.monotonic() + moment
            done = run.wait(lambda e=end: time.monotonic() >= e)
        if done:
            assert run.statuses == {0: 0, 1: 0}, run.logs()
            assert run.outcome() == expected, run.directory
            runs += 1
            continue
        began = time.monotonic()
        strike(run, what, victim)
        seconds = time.monotonic() - began
        reap()
        check(run, what, victim)
        killed += 1
        steps = saved_steps(run.workdir / "checkpoints")
        where = "network" if early else "first row"
        print(
            f"{killed}: {what} of process {victim}, {moment:.2f} s after the {where}: statuses "
            f"{run.statuses[0]} and {run.statuses[1]} after {seconds:.1f} s, complete: {steps}",
            flush=True,
        )
    print(json.dumps({"kills": killed, "runs": runs, "seed": seed}))


if __name__ == "__main__":
    main()
