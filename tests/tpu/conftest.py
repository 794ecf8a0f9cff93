"""A small project with the scripts, a gcloud that is none, and two workers that are folders."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[2] / "tpu"
FAKE = Path(__file__).parent / "fake"
GIT = ("git", "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A checkout that holds tpu/, a module, a config and an ignored folder."""
    root = tmp_path_factory.mktemp("template") / "project"
    shutil.copytree(SCRIPTS, root / "tpu")
    for name, text in {
        "glm_jax/__init__.py": "",
        "configs/tiny.py": "",
        "constraints.txt": "",
        ".gitignore": "runs/\nbuild/\n",
        "runs/ignored": "",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    subprocess.run([*GIT, "init", "--quiet", root], check=True)
    subprocess.run([*GIT, "-C", root, "add", "."], check=True)
    subprocess.run([*GIT, "-C", root, "commit", "--quiet", "-m", "all"], check=True)
    return root


@pytest.fixture
def cloud(template, tmp_path):
    """What the fake gcloud plays on.

    cloud(script, *arguments) runs tpu/SCRIPT.sh; cloud.calls() are the arguments of every gcloud
    since; cloud.says(what, *lines) sets the states of "queued" or "slice"; cloud.workers are the
    homes of two workers.
    """
    root = tmp_path / "project"
    shutil.copytree(template, root)
    fake = tmp_path / "fake"
    workers = [fake / "worker0", fake / "worker1"]
    for worker in workers:
        worker.mkdir(parents=True)
    env = {k: os.environ[k] for k in ("LANG", "TMPDIR") if k in os.environ}
    env |= {"PATH": f"{FAKE}:{os.environ['PATH']}", "FAKE": str(fake), "HOME": str(tmp_path)}

    def run(script, *arguments, **extra):
        return subprocess.run(
            [root / "tpu" / f"{script}.sh", *arguments],
            env={**env, **extra},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    class Cloud(SimpleNamespace):
        __call__ = staticmethod(run)

    def says(what, *lines):
        (fake / what).write_text("".join(f"{line}\n" for line in lines))

    def calls():
        file = fake / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line.removeprefix("compute tpus ") for line in lines]

    yield Cloud(root=root, fake=fake, workers=workers, says=says, calls=calls)
    for pid in fake.glob("worker*/glm_jax_run/pid"):
        try:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue
