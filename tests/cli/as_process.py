"""Python code that ends in `cli.run`, run as a process."""

import os
import subprocess
import sys
from pathlib import Path

from glm_jax import cli


def python(code, *, stdout=subprocess.PIPE, **variables):
    """Runs Python code that ends in `cli.run`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=environment
    )


PRINTS = "from glm_jax import cli\ncli.run(lambda: print('\\u5e8a' * 9, flush={flush}))"
