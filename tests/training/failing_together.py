"""Two processes train together and one of them fails; run by test_failures.py.

    python tests/training/failing_together.py DIRECTORY CASE ..

Each process is a fork of this one, which has imported everything. Prints a JSON object: what both
processes of each case ended with, and how many seconds after the failure.
"""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import matplotlib.figure  # noqa: F401 - so that no fork imports it
import numpy as np
import tiny_run

from glm_jax import cli
from glm_jax.errors import UserError
from glm_jax.training import checkpoints, loop, unigram
from glm_jax.training.joining import Network, join
from glm_jax.training.run import workdir
from glm_jax.training.run.interrupts import ending_at_once
from glm_jax.training.run.watching import run_together
from glm_jax.training.watch import recording
from tests.free_port import free_port

LIMIT = 240  # seconds for a case, on however busy a machine
FULL = OSError(errno.ENOSPC, "No space left on device", "a file")
# Batches that are read before the first step: held out, frequencies of targets, for samples.
PREPARED = 2 + 16 + 1
BROKEN = OSError(errno.EIO, "Input/output error", "a shard")


class Here:
    """What fails in this process: called in the place of something, it raises from a call on."""

    def __init__(self, directory: Path):
        self.directory, self.calls = directory, 0

    def noted(self) -> None:
        (self.directory / "failed").write_text(str(time.time()))

    def raises(self, error: Exception, inner=None, at: int = 1):
        """`inner`, whose call number `at` raises."""

        def call(*args, **options):
            self.calls += 1
            if self.calls >= at:
                self.noted()
                raise error
            return None if inner is None else inner(*args, **options)

        return call


def bad_row(here):
    tiny_run.Stream.__next__ = here.raises(BROKEN, tiny_run.Stream.__next__, at=PREPARED + 5)


def no_store(here):
    real = tiny_run.Stream.__init__
    error = UserError("the store 'corpus' cannot be read: Permission denied")
    tiny_run.Stream.__init__ = here.raises(error, real, at=2)


def own_workdir(here):
    workdir._SEEN = 1.0
    real = loop.train

    def train(config, path, *args):
        return real(config, path.with_name("own"), *args)

    loop.train = train
    real_check = loop.check_shared

    def check_shared(path):
        here.noted()
        real_check(path)

    loop.check_shared = check_shared


def not_finite(here):
    compiled = loop.compile_train_step

    def compile_train_step(*args):
        inner = compiled(*args)

        def step(state, batch):
            state, metrics = inner(state, batch)
            here.calls += 1
            if here.calls == 3:
                here.noted()
                metrics = {**metrics, "loss": np.float32("nan")}
            return state, metrics

        return step

    loop.compile_train_step = compile_train_step


def tracker(here):
    class Tracker:
        write = staticmethod(here.raises(FULL, at=2))

        def close(self):
            pass

    recording.open_trackers = lambda *_: [Tracker()]


def log(here):
    recording.MetricsLog.write = here.raises(FULL, recording.MetricsLog.write, at=2)


def plot(here):
    recording.plot_losses = here.raises(ValueError("no such colour"))


def evaluation(here):
    loop.Evaluator.__call__ = here.raises(MemoryError("no room"))


def samples(here):
    loop.Sampler.section = here.raises(KeyError("id 77"))


def frequencies(here):
    unigram.write_whole = here.raises(FULL)


def save_begins(here):
    checkpoints.ocp.save_checkpointables_async = here.raises(FULL)


def save_ends(here):
    checkpoints.Checkpoints._finish = here.raises(FULL)


def restore(here):
    checkpoints.Checkpoints._restore = here.raises(BROKEN)


def signal_before_the_first_step(here):
    real = loop.Evaluator.__init__

    def init(self, *args):
        here.noted()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2)
        real(self, *args)

    loop.Evaluator.__init__ = init


def signal_that_reaches_no_save(here):
    """The other process's rows do not come; this one waits for it in a collective."""
    real = recording.Recorder.step

    def step(self, number, *args):
        real(self, number, *args)
        if number == 3:
            here.noted()
            os.kill(os.getpid(), signal.SIGTERM)

    recording.Recorder.step = step


def rows_that_do_not_come(here):
    real = tiny_run.Stream.__next__

    def following(self):
        here.calls += 1
        if here.calls == PREPARED + 4:
            time.sleep(1000)
        return real(self)

    tiny_run.Stream.__next__ = following


def stopped(inner):
    """An evaluation with a signal in it."""

    def call(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return inner(*args)

    return call


FIRST = "stopped in an evaluation"
DEADLINES = {"a signal that reaches no save": 4}
# By name: which process, and what fails there; then what happens on the other.
CASES = {
    "a bad shard of data": (1, bad_row, None),
    "a store that it cannot read": (1, no_store, None),
    "a workdir of its own": (1, own_workdir, None),
    "a loss that is not finite": (1, not_finite, None),
    "a tracker's disk": (0, tracker, None),
    "the log's disk": (0, log, None),
    "a plot": (0, plot, None),
    "an evaluation": (1, evaluation, None),
    "samples": (1, samples, None),
    "the file of frequencies": (0, frequencies, None),
    "the begin of a save": (1, save_begins, None),
    "the end of a save": (1, save_ends, None),
    "a restore": (1, restore, None),
    "a signal before the first step": (1, signal_before_the_first_step, None),
    "a signal that reaches no save": (1, signal_that_reaches_no_save, rows_that_do_not_come),
}


def process(case: str, index: int, path: Path, address: str) -> int:
    """What one process does; its exit status."""
    jax.config.update("jax_num_cpu_devices", 2)
    config = tiny_run.change_fields(
        tiny_run.tiny_config(),
        train={
            "eval_every": 2,
            "checkpoint_every": 2,
            "preemption_deadline": DEADLINES.get(case, LIMIT),
        },
        mesh={"data": 1, "fsdp": 4},
    )
    if case == FIRST:  # the run that another one restores
        loop.Evaluator.__call__ = stopped(loop.Evaluator.__call__)
    else:
        where, failing, elsewhere = CASES[case]
        act = failing if index == where else elsewhere
        if act is not None:
            act(Here(path.parent))

    def batches(split, shard_index, num_shards):
        return tiny_run.Stream(0 if split == "train" else 10_000, shard_index, num_shards)

    def main() -> int:
        network = Network(address, 2, index)
        join(network, {}, timeout=100, lost_after=30, say=lambda line: None)
        return loop.train(config, path, batches, tiny_run.LetterTokenizer())

    with ending_at_once():
        return run_together(main, 30)


def fork(case: str, index: int, path: Path, address: str) -> int:
    """Starts one process; its id."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(path.parent / f"{index}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    cli.run(lambda: process(case, index, path, address))


def run(case: str, directory: Path) -> dict:
    """Both processes of a case: statuses, logs, and seconds from the failure to the last end."""
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    pids = [fork(case, index, directory / "run", address) for index in range(2)]
    statuses: dict[int, int] = {}
    deadline = time.monotonic() + LIMIT
    while len(statuses) < 2:
        for index, pid in enumerate(pids):
            if index not in statuses and (found := os.waitpid(pid, os.WNOHANG))[0]:
                statuses[index] = os.waitstatus_to_exitcode(found[1])
            if index not in statuses and time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    failed = directory / "failed"
    return {
        "statuses": [statuses[0], statuses[1]],
        "logs": [(directory / f"{index}.log").read_text() for index in range(2)],
        "seconds": time.time() - float(failed.read_text()) if failed.exists() else None,
    }


def main() -> None:
    directory, cases = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    found = {}
    for number, case in enumerate(cases):
        if case == "a restore":
            first = run(FIRST, directory / str(number))
            assert "step 2 is saved" in first["logs"][0], first
        found[case] = run(case, directory / str(number))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
