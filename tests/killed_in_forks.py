"""Trains a tiny run again and again, killing it at random moments; run by test_faults.py.

    python tests/killed_in_forks.py DIRECTORY KILLS SEED [KIND]

KIND is one of `tuned_runs.KINDS`: what is trained over a frozen base; without it all is trained.
Each attempt is a fork of a process that has imported everything, so that it costs a second instead
of ten; `kill -9` ends it as it ends any other. A run that comes to its end in spite of it must have
the parameters and the metrics of one that nothing disturbed, to the last bit; then another begins,
until so many were killed. Prints each moment, and one JSON line last.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import matplotlib.figure  # noqa: F401 - so that no fork imports it
import numpy as np

from glm_jax.checkpoints.params import load_saved
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point
from tests import tiny_run, tuned_runs

NUM_STEPS = 16
LIMIT = 1800  # seconds an attempt may take, on however busy a machine


def config_of(kind: str | None, base: Path):
    """Of every attempt."""
    times = {"num_steps": NUM_STEPS, "checkpoint_every": 1, "eval_every": 8, "keep_best": 1}
    if kind is None:
        return tiny_run.change_fields(tiny_run.tiny_config(), train=times)
    return tuned_runs.config_of(kind, base, **times)


def attempt(workdir: Path, kind: str | None) -> None:
    """In a fork: trains to the end, then writes what came out to WORKDIR/outcome.json."""
    base = workdir.parent / "base"
    if kind is not None and not base.exists():  # here, since the parent must not start jax
        tuned_runs.save_base(base)
    config = config_of(kind, base)
    config, params = starting_point(config, workdir, make_mesh(config.mesh))
    status = train(config, workdir, tuned_runs.batches, tiny_run.LetterTokenizer(), params)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(load_saved(workdir).params):
        digest.update(np.asarray(leaf).tobytes())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    times = ("tokens_per_second", "goodput", "time/")
    kept = [{k: v for k, v in row.items() if not k.startswith(times)} for row in rows]
    outcome = {"status": status, "parameters": digest.hexdigest(), "rows": kept}
    (workdir / "outcome.json").write_text(json.dumps(outcome))


def fork(workdir: Path, log: Path, kind: str | None) -> int:
    """Starts an attempt; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    status = 1
    try:
        attempt(workdir, kind)
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(status)


def ended(pid: int) -> bool:
    """Whether it came to its end; it must have done so without an error."""
    found, status = os.waitpid(pid, os.WNOHANG)
    if found and status:
        raise SystemExit(f"an attempt ended with status {status}")
    return bool(found)


def wait(pid: int, until) -> bool:
    """Waits until a condition holds or the process has ended; returns whether it has."""
    deadline = time.monotonic() + LIMIT
    while not until():
        if ended(pid):
            return True
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise SystemExit("an attempt took too long")
        time.sleep(0.002)
    return False


def undisturbed(workdir: Path, log: Path, kind: str | None) -> tuple[dict, float, float]:
    """Its outcome, and the seconds before its first row and from there to its last."""
    start = time.monotonic()
    pid = fork(workdir, log, kind)
    wait(pid, (workdir / "metrics.jsonl").exists)
    first = time.monotonic()
    wait(pid, lambda: NUM_STEPS in saved_steps(workdir / "checkpoints"))
    last = time.monotonic()
    wait(pid, lambda: False)
    return json.loads((workdir / "outcome.json").read_text()), first - start, last - first


def main() -> None:
    directory, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    log, draws = directory / "log", random.Random(seed)
    kind = sys.argv[4] if len(sys.argv) > 4 else None
    undisturbed(directory / "compiles", log, kind)
    expected, before, within = undisturbed(directory / "whole", log, kind)
    assert expected["status"] == 0
    runs, killed, torn = 0, 0, 0
    while killed < kills or (directory / f"run{runs}").exists():
        workdir = directory / f"run{runs}"
        pid = fork(workdir, log, kind)
        anywhere = draws.random() < 0.25
        moment = draws.uniform(0, before if anywhere else within / 2)
        done = False
        if killed >= kills:
            done = wait(pid, lambda: False)
        elif not anywhere:  # from the first row that this attempt writes
            rows = size_of(workdir)
            done = wait(pid, lambda w=workdir, r=rows: size_of(w) != r)
        if not done:
            end = time.monotonic() + moment
            done = wait(pid, lambda e=end: time.monotonic() >= e)
        if done:
            assert json.loads((workdir / "outcome.json").read_text()) == expected, workdir
            runs += 1
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
        names = [p.name for p in (workdir / "checkpoints").glob("*")]
        steps = saved_steps(workdir / "checkpoints")
        torn += len(names) > len(steps)
        what = "start" if anywhere else "first row"
        print(f"kill {killed}: {moment:.3f} s after the {what}, complete steps {steps}", flush=True)
    print(json.dumps({"kills": killed, "in_a_save": torn, "runs": runs, "seed": seed}))


def size_of(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    main()
