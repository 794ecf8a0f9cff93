"""Shows on one machine what a run on several hosts goes through: `make pods`.

    python tools/pods.py [--workdir runs/pods]

Two processes of four CPU devices train a small GLM on the bundled text. Midway one is killed; both
are started again, and stopped; one process alone ends the run. Beside it stands a run that nobody
disturbed: its losses step by step, and the checksum of the parameters at the end.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS, EVERY = 60, 10
CHANGES = {
    "train.num_steps": STEPS,
    "train.log_every": 1,
    "train.checkpoint_every": EVERY,
    "train.eval_every": 0,
    "train.sample_every": 0,
    "train.eval_batches": 2,
    "mesh.data": 2,
    "mesh.fsdp": 4,
}


def start(workdir: Path, processes: int) -> list[subprocess.Popen[str]]:
    """Starts `train` on so many processes, eight devices in all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    devices = f"--xla_force_host_platform_device_count={8 // processes}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices}
    command = [sys.executable, "-m", "glm_jax.train", "--config", "configs/demo_cpu.py"]
    for name, value in CHANGES.items():
        command += ["--set", f"{name}={value}"]
    command += ["--workdir", str(workdir), "--lost_after", "10"]
    running = []
    for index in range(processes):
        joins = ["--coordinator", address, "--num_processes", str(processes)]
        joins = [*joins, "--process_id", str(index)] if processes > 1 else []
        with open(workdir.with_name(f"{workdir.name}_{index}.log"), "a") as log:
            running.append(
                subprocess.Popen(
                    [*command, *joins], cwd=ROOT, env=environment, text=True, stdout=log, stderr=log
                )
            )
    return running


def ended(running: list[subprocess.Popen[str]], *allowed: int) -> list[int]:
    """Waits; the statuses, which must be among those allowed."""
    found = [process.wait(300) for process in running]
    if not set(found) <= set(allowed):
        raise SystemExit(f"ended with status {found}; the logs are beside the workdir")
    return found


def reached(workdir: Path, step: int, running: list[subprocess.Popen[str]]) -> None:
    """Waits until a checkpoint is whole."""
    while not (workdir / "checkpoints" / str(step) / "manifest.json").exists():
        if any(process.poll() is not None for process in running):
            raise SystemExit(f"a process ended before step {step}; the logs are beside the workdir")
        time.sleep(0.05)


def losses(workdir: Path) -> dict[int, float]:
    """The loss of each step."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines) if "loss" in row}


def checksum(workdir: Path) -> str:
    """Of the parameters at the end, of all bytes."""
    import jax
    import numpy as np

    import glm_jax

    found = hashlib.sha256()
    for leaf in jax.tree.leaves(glm_jax.load(workdir).params):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "pods")
    args = parser.parse_args()
    whole, disturbed = args.workdir / "whole", args.workdir / "disturbed"
    shutil.rmtree(args.workdir, ignore_errors=True)
    args.workdir.mkdir(parents=True)
    began = time.time()

    def say(line: str) -> None:
        print(f"{time.time() - began:5.0f} s  {line}", flush=True)

    ended(start(whole, 2), 0)
    say(f"two processes trained {STEPS} steps, undisturbed")
    running = start(disturbed, 2)
    reached(disturbed, STEPS // 3, running)
    pid = running[1].pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    say(f"process 1 of another run was killed (-9) after step {STEPS // 3}")
    statuses = ended(running, 4, 137)
    log = disturbed.with_name("disturbed_0.log").read_text(encoding="utf-8")
    say(f"statuses {statuses}; {log.strip().splitlines()[-1]}")
    running = start(disturbed, 2)
    reached(disturbed, 2 * STEPS // 3, running)
    running[1].send_signal(signal.SIGTERM)
    say(f"both went on; SIGTERM to process 1: statuses {ended(running, 143)}")
    ended(start(disturbed, 1), 0)
    say("one process alone ended the run")

    one, other = losses(whole), losses(disturbed)
    print("\n step  undisturbed    disturbed")
    for step in sorted(one):
        if step % EVERY == 0 or step == 1:
            print(f"{step:5d}  {one[step]:11.6f}  {other[step]:11.6f}")
    largest = max(abs(one[step] - other[step]) for step in one)
    print(f"\nlargest difference of {len(one)} losses: {largest:.1e}. One process sums in another")
    print("order than two, so the parameters at the end differ in their last bits:")
    for workdir in (whole, disturbed):
        print(f"  {workdir.name:12s} {checksum(workdir)}")
    if sorted(one) != sorted(other) or largest > 1e-4:
        raise SystemExit("the two runs differ")


if __name__ == "__main__":
    main()
