"""`glm_jax.tasks.quiet` in processes of its own, because it works on file descriptors."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import glm_jax

# Loaded from its file: the package around it imports TensorFlow.
QUIET = Path(glm_jax.__file__).parent / "tasks" / "quiet.py"
PRELUDE = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("quiet", {str(QUIET)!r})
quiet = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quiet)
"""


def run(code):
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_known_chatter_goes_and_the_rest_stays():
    done = run(
        "with quiet.without_chatter():\n"
        "    os.write(2, b'2026 I port.cc: oneDNN custom operations are on.\\n')\n"
        "    os.write(2, b'E0000 a real error\\n')\n"
        "print('after', file=sys.stderr)\n"
    )
    assert done.stderr.splitlines() == ["E0000 a real error", "after"]


def test_everything_stays_where_the_body_fails():
    done = run(
        "with quiet.without_chatter():\n"
        "    os.write(2, b'oneDNN is on\\n')\n"
        "    raise ImportError('broken')\n"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("oneDNN is on\n")
    assert done.stderr.endswith("ImportError: broken\n")


def test_without_standard_error():
    done = run("os.close(2)\nwith quiet.without_chatter():\n    print('body')\n")
    assert done.stdout == "body\n"


def test_without_the_packages_the_error_says_what_to_install():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['seqio'] = None\n"
            "from glm_jax import cli\n"
            "def main():\n    import glm_jax.tasks\n"
            "cli.run(main)",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: glm_jax.tasks needs seqio and TensorFlow")
    assert "-m pip install -e" in done.stderr
    assert "[tasks]" in done.stderr
    assert "python -m glm_jax.cache" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.tensorflow
@pytest.mark.skipif(importlib.util.find_spec("seqio") is None, reason="needs seqio")
def test_importing_tasks_is_silent():
    done = subprocess.run(
        [sys.executable, "-c", "import glm_jax.tasks"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
