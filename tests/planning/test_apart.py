"""Children that plan; what they do stands here, since they import it."""

import os
import sys

import pytest

from glm_jax.errors import UserError
from glm_jax.planning.apart import Attempts, ChildFailed, run_apart


def aborts(attempts, broken=("b",)):
    """Compiles a, b and c; of some the compiler aborts."""
    reports = []
    for name in "abc":
        attempts.say(f"compiling {name}")

        def compile_it(name=name):
            if name in broken:
                print("F1126 00:38:45.276  17 spmd.cc:507] Check failed: x == y ", file=sys.stderr)
                print("    @     0x7f81  a stack", file=sys.stderr, flush=True)
                os.abort()
            return {"name": name, "failed": None, "process": os.getpid()}

        reports.append(attempts.report(name, {"name": name, "failed": None}, compile_it))
    return reports


def is_killed(attempts):
    return [attempts.report("a", {"failed": None}, lambda: os.kill(os.getpid(), 9))]


def errs(attempts):
    raise UserError("data.batch_size=7 is odd")


def has_a_bug(attempts):
    print("a warning", file=sys.stderr)
    return [{}["nothing"]]


def dies_elsewhere(attempts):
    os._exit(5)


@pytest.mark.processes
def test_a_compiler_that_aborts_is_a_report_and_the_others_are_made_once(capfd):
    said = []
    reports = run_apart(aborts, said.append)
    assert [made["failed"] for made in reports] == [
        None,
        "the compiler failed: Check failed: x == y",
        None,
    ]
    # The first child made a, the second one c.
    assert reports[0]["process"] != reports[2]["process"]
    assert said == ["compiling a", "compiling b", "compiling c"]
    assert capfd.readouterr().err == ""


@pytest.mark.processes
def test_a_death_without_a_word_is_told_by_its_signal():
    (made,) = run_apart(is_killed, print)
    assert made["failed"] == (
        "the compiler failed: its process was ended by SIGKILL; this machine may be out of memory"
    )


@pytest.mark.processes
def test_mistakes_and_bugs_of_a_child_are_those_of_its_parent(capfd):
    with pytest.raises(UserError, match=r"^data.batch_size=7 is odd$"):
        run_apart(errs, print)
    with pytest.raises(ChildFailed, match="KeyError: 'nothing'"):
        run_apart(has_a_bug, print)
    assert capfd.readouterr().err == "a warning\n"
    with pytest.raises(ChildFailed, match="the process that plans ended: its process ended with"):
        run_apart(dies_elsewhere, print)


def test_what_is_known_is_not_compiled_again():
    told = []
    attempts = Attempts({"a": {"known": True}}, told.append)
    assert attempts.report("a", {}, lambda: pytest.fail("compiled")) == {"known": True}
    assert attempts.report("b", {"stub": 1}, lambda: {"made": 1}) == {"made": 1}
    assert told == [("begin", ("b", {"stub": 1})), ("end", {"made": 1})]
