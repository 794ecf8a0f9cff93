"""Categories add up to wall time exactly, whatever happens, and the log survives a kill."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.errors import UserError
from glm_jax.training.watch import goodput as module
from glm_jax.training.watch.goodput import Goodput
from glm_jax.training.watch.goodput_log import ALL, CATEGORIES, History, read_log

SECOND = 10**9


class Clock:
    """Moves when it is told to; by two origins, as a machine's clocks."""

    def __init__(self):
        self.at = 1_000 * SECOND

    def __call__(self):
        return self.at

    def unix(self):
        return self.at + 777 * SECOND

    def wait(self, seconds):
        self.at += int(seconds * SECOND)


@pytest.fixture
def clock():
    return Clock()


def new(clock, began=None):
    return Goodput(64, began, clock, clock.unix)


def spent(goodput):
    return {n: v / SECOND for n, v in goodput.nanoseconds().items() if v}


def test_the_inner_category_has_the_time(clock):
    goodput = new(clock, began=clock.at - 3 * SECOND)
    clock.wait(1)
    with goodput.during("compiling"):
        clock.wait(10)
    goodput.turn("steps")
    clock.wait(5)
    with goodput.during("saving"):
        clock.wait(2)
        with goodput.during("waiting_for_data"):
            clock.wait(1)
        clock.wait(2)
    clock.wait(6)
    assert spent(goodput) == {
        "starting": 4,
        "compiling": 10,
        "steps": 11,
        "saving": 4,
        "waiting_for_data": 1,
    }
    values = goodput.values()
    assert (values["goodput"], values["time/wall"], values["time/saving"]) == (11 / 30, 30, 4)
    assert set(values) == {"goodput", "time/wall", *(f"time/{name}" for name in ALL)}


def test_a_category_that_is_none(clock):
    with pytest.raises(ValueError, match="no category 'lost'; there are"):
        new(clock).turn("lost")


def test_a_killed_start_and_the_next(clock, tmp_path):
    """Steps 1 to 4 of 2 s each with a save after 2; killed; 30 s later resumed after step 2."""
    path = tmp_path / "goodput.jsonl"
    first = new(clock)
    kept = first.logged(path, 0)
    kept.__enter__()
    first.turn("steps")
    for step in (1, 2, 3, 4):
        clock.wait(2)
        first.step_done(step)
        if step == 2:
            with first.during("saving"):
                clock.wait(1)
    killed = path.read_bytes()
    clock.wait(30)
    kept.__exit__(None, None, None)
    path.write_bytes(killed + b'{"start": 1, "beg')
    second = new(clock)
    with second.logged(path, 2):
        second.turn("steps")
        clock.wait(4)
        second.step_done(3)
        assert spent(second) == {"steps": 8, "lost": 4, "saving": 1, "down": 30}
        assert second.values()["goodput"] == 8 / 43
        second.ends(143)
    records, damaged = read_log(path)
    assert damaged == 1
    history = History(records)
    assert history.nanoseconds == second.nanoseconds()
    assert history.status == 143
    (restart,) = history.restarts
    assert (restart.status, restart.reached, restart.resumed, restart.steps_lost) == (None, 4, 2, 2)


def test_a_line_lasts_until_a_save_or_a_minute(clock, tmp_path):
    path = tmp_path / "log"
    goodput = new(clock)
    with goodput.logged(path, 0):
        goodput.turn("steps")
        for step in range(1, 180):
            clock.wait(1)
            goodput.step_done(step)
        with goodput.during("saving"):
            clock.wait(0.01)  # too short to close a line as another phase would
        goodput.ends(0)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    # The last line of each minute; before the save and after it; and the end.
    assert steps == [60, 120, 179, 179, 179]


def test_short_phases_share_a_line(clock, tmp_path):
    goodput = new(clock)
    with goodput.logged(tmp_path / "log", 0):
        for seconds in (100, 0.1, 0.1, 0.1, 50):
            with goodput.during("evaluating"):
                clock.wait(seconds)
        goodput.ends(0)
    spent = [one.nanoseconds["evaluating"] / SECOND for one in read_log(tmp_path / "log")[0][1:]]
    # A 500th of the time is a little over 0.2 s: the third short one closes a line.
    assert spent == [100, 100.3, 150.3, 150.3]


def test_how_a_start_ends(clock, tmp_path):
    for index, (error, status) in enumerate([(UserError("a"), 2), (KeyError("a"), 1)]):
        with pytest.raises(type(error)), new(clock).logged(tmp_path / "log", 0):
            raise error
        assert read_log(tmp_path / "log")[0][-1].status == status
        assert read_log(tmp_path / "log")[0][-1].start == index + 1


def test_an_error_of_several_processes_may_be_that_another_was_lost(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "share", lambda: (0, 2))
    with pytest.raises(KeyError), new(clock).logged(tmp_path / "log", 0):
        raise KeyError("a")
    assert read_log(tmp_path / "log")[0][-1].status is None


def test_the_thread_keeps_the_log_while_nothing_else_happens(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BEAT", 0.01)
    goodput = new(clock)
    with goodput.logged(tmp_path / "log", 0), goodput.during("compiling"):
        clock.wait(100)
        for _ in range(1000):
            if read_log(tmp_path / "log")[0][-1].nanoseconds.get("compiling") == 100 * SECOND:
                break
            module.time.sleep(0.01)
        else:
            raise AssertionError("the thread wrote nothing")


def test_only_the_first_process_writes(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_first", lambda: False)
    with new(clock).logged(tmp_path / "log", 0):
        pass
    assert not (tmp_path / "log").exists()


def test_two_processes_then_one(clock, tmp_path, monkeypatch):
    for processes, first in ((2, 0), (1, 3)):
        monkeypatch.setattr(module, "share", lambda count=processes: (0, count))
        goodput = new(clock)
        with goodput.logged(tmp_path / "log", first):
            goodput.turn("steps")
            clock.wait(6)
            goodput.step_done(first + 3)
            with goodput.during("saving"):
                clock.wait(1)
            goodput.ends(0)
        clock.wait(5)
    records, _ = read_log(tmp_path / "log")
    assert [one.processes for one in records] == [2, 2, 2, 1, 1, 1]
    history = History(records)
    assert history.nanoseconds["steps"] == 12 * SECOND
    assert history.wall == 19 * SECOND


def test_a_full_disk_does_not_end_the_run(clock, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    goodput = new(clock)
    with goodput.logged(tmp_path / "log", 0):
        monkeypatch.setattr(module.os, "pwrite", full)
        clock.wait(2)
        goodput.step_done(1)
    assert read_log(tmp_path / "log")[0][-1].step == 0


actions = st.lists(
    st.tuples(st.sampled_from([*CATEGORIES, "step"]), st.integers(0, 90 * SECOND)), max_size=30
)
starts = st.lists(
    st.tuples(actions, st.integers(0, 10**12), st.booleans(), st.floats(0, 1)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(starts=starts)
def test_categories_add_up_to_wall_time(starts, tmp_path_factory):
    """Whatever is done, wherever it is killed, wherever it resumes."""
    path, clock = tmp_path_factory.mktemp("goodput") / "log", Clock()
    began, first = clock.unix(), 0
    for done, down, kills, back in starts:
        goodput = new(clock)
        step = first
        with goodput.logged(path, first):
            for name, nanoseconds in done:
                if name == "step":
                    with goodput.during("steps"):
                        clock.at += nanoseconds
                    step += 1
                    goodput.step_done(step)
                else:
                    with goodput.during(name):
                        clock.at += nanoseconds
            alive = goodput.nanoseconds()
            assert sum(alive.values()) == clock.unix() - began
            goodput.ends(0)
        records, damaged = read_log(path)
        assert damaged == 0
        history = History(records)
        assert history.nanoseconds == alive
        assert history.wall == clock.unix() - began
        assert all(value >= 0 for value in alive.values())
        assert history.steps == step
        if kills:
            # As a kill leaves it: the last line is an older one, or has no status.
            last = dataclasses.replace(records[-1], status=None)
            path.write_bytes(b"".join(one.line() for one in [*records[:-1], last]))
        clock.at += down
        first = int(back * step)
