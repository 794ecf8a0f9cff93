"""A process that calls a function of a reward file, for `glm_jax.training.rollouts.rewarding`.

It reads an object a line, {"prompt": .., "answer": .., "example": ..}, and writes one,
{"reward": 1.0} or {"error": "ValueError: ..."}; first, {"ready": true} or {"error": ..}. It imports
nothing of this package, so that it starts in a tenth of a second. What the function prints goes to
standard error.
"""

import contextlib
import ctypes
import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import TextIO


def main(file: str, name: str) -> int:
    """Serves until its input ends."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # As for a script: the file may import its neighbours.
    sys.path.insert(0, os.path.dirname(os.path.abspath(file)))
    try:
        function = runpy.run_path(file).get(name)
    except BaseException as error:
        return _say(answers, {"error": _named(error)})
    if not callable(function):
        return _say(answers, {"error": f"there is no function {name} in it"})
    _say(answers, {"ready": True})
    for line in os.fdopen(0, encoding="utf-8"):
        _say(answers, _called(function, json.loads(line)))
    return 0


def _end_with_parent() -> None:
    """Asks Linux to kill this process when the one that started it ends, however that ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _called(function: Callable[..., object], asked: dict[str, object]) -> dict[str, object]:
    try:
        found = function(asked["prompt"], asked["answer"], asked["example"])
        return {"reward": float(found)}  # type: ignore[arg-type]
    except BaseException as error:
        return {"error": _named(error)}


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _say(answers: TextIO, what: dict[str, object]) -> int:
    answers.write(json.dumps(what) + "\n")
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
