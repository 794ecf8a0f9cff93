"""In processes of their own: what is kept is kept until the end."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from glm_jax.errors import UserError
from glm_jax.training.run import freed_memory

# Page faults of ten pieces of 64 MiB, written and freed one after the other, behind a first one.
PROGRAM = """
import json, resource, sys
from glm_jax.training.run.freed_memory import is_kept, keep_freed_memory

kept = keep_freed_memory(lambda: sys.argv[1] == "kept") if sys.argv[1] != "left" else None

def faults():
    bytes(64 << 20)  # zeros: calloc
    bytearray(b"x") * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

first = faults()
for _ in range(10):
    last = faults()
print(json.dumps([kept, is_kept(), last - first]))
"""
GLIBC = freed_memory._mallopt() is not None


def run(how):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.processes
@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_pages_that_are_kept_are_not_made_again():
    assert run("kept")[:2] == [True, True]
    assert run("kept")[2] < 1000
    # 64 MiB are 16384 pages of 4 KiB; larger pages would make fewer faults.
    for how, kept in (("left", None), ("not wanted", False)):
        said, is_kept, faults = run(how)
        assert (said, is_kept) == (kept, False)
        assert faults > 10_000


def test_one_arena_comes_before_the_question_and_goes_where_the_answer_is_no(monkeypatch):
    calls = []

    def mallopt(parameter, value):
        calls.append((parameter, value))
        return 1

    def wanted(answer):
        calls.append("asked")
        return answer

    monkeypatch.setattr(freed_memory, "_kept", False)
    monkeypatch.setattr(freed_memory, "_mallopt", lambda: mallopt)
    assert freed_memory.keep_freed_memory(lambda: wanted(False)) is False
    assert calls == [(-8, 1), "asked", (-8, 0)]
    calls.clear()
    assert freed_memory.keep_freed_memory(lambda: wanted(True)) is True
    assert calls == [(-8, 1), "asked", (-4, 0), (-1, -1)]
    assert freed_memory.is_kept()


def test_without_glibc_nothing_is_kept_or_asked(monkeypatch):
    monkeypatch.setattr(freed_memory, "_kept", False)
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert freed_memory.keep_freed_memory(lambda: 1 / 0) is False
    monkeypatch.setattr(freed_memory.sys, "platform", "darwin")
    assert freed_memory.keep_freed_memory(lambda: 1 / 0) is False
    assert not freed_memory.is_kept()


@pytest.mark.parametrize("asked", [True, None])
def test_what_the_system_cannot_keep_is_refused_where_it_was_asked_for(monkeypatch, asked):
    monkeypatch.setattr(freed_memory, "_mallopt", lambda: None)
    if asked is None:
        freed_memory.keep_memory(asked)
    else:
        with pytest.raises(UserError, match="keep_freed_memory=True needs Linux with glibc"):
            freed_memory.keep_memory(asked)
