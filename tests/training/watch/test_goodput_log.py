"""Arithmetic on a log that was written by hand, and lines that are none."""

import dataclasses

import pytest

from glm_jax.training.watch.goodput_log import ALL, History, Record, parse, read_log
from tests.training.watch.written_log import RECORDS, SECOND, SPENT, WALL, record, write


def seconds(nanoseconds):
    return {name: value / SECOND for name, value in nanoseconds.items()}


def test_where_the_time_of_three_starts_went():
    history = History(RECORDS)
    assert seconds(history.nanoseconds) == SPENT
    assert sum(SPENT.values()) == WALL
    assert history.wall == WALL * SECOND == history.ended - history.began
    assert (history.steps, history.status, history.tokens_per_step) == (30, 0, 64)
    killed, stopped = history.restarts
    assert (killed.status, killed.reached, killed.resumed, killed.processes) == (None, 14, 10, 2)
    assert (killed.down, killed.lost, killed.steps_lost) == (15 * SECOND, 20 * SECOND, 4)
    assert (stopped.status, stopped.reached, stopped.resumed, stopped.processes) == (143, 23, 23, 1)
    assert (stopped.down, stopped.lost, stopped.steps_lost) == (10 * SECOND, 0, 0)


def test_intervals_add_up_and_lie_side_by_side():
    history = History(RECORDS)
    spent, at = dict.fromkeys(ALL, 0), 0
    for began, ended, parts in history.intervals():
        assert began == at
        assert ended - began == sum(parts.values())
        at = ended
        for name, value in parts.items():
            spent[name] += value
    assert spent == history.nanoseconds
    assert at == history.wall
    # The steps after the save of step 10 are the lost ones.
    assert [parts.get("lost", 0) // SECOND for *_, parts in history.intervals()] == [
        *[0, 20],
        *[0, 0, 0],
        *[0, 0],
    ]
    assert [at // SECOND for at in history.beginnings] == [0, 120, 200]


def test_going_back_behind_the_start_before():
    """Start 3 goes back to step 5: half of what start 1 kept, and all of start 2, is lost."""
    history = History([*RECORDS[:4], record(3, 300, 5, 5)])
    assert history.restarts[1].steps_lost == 18
    # Start 1 has a line at step 10 and none at 5: half of the 50 s until then.
    assert history.restarts[1].lost == (25 + 52) * SECOND
    assert history.nanoseconds["steps"] == 25 * SECOND
    assert history.wall == history.ended - history.began


def test_a_step_that_was_cut_short_is_lost():
    """Killed between the save of step 10 and the end of step 11: no step is lost, but 20 s are."""
    cut = dataclasses.replace(RECORDS[1], step=10)
    history = History([RECORDS[0], cut, RECORDS[2]])
    assert (history.restarts[0].steps_lost, history.restarts[0].lost) == (0, 20 * SECOND)


def test_a_clock_that_went_back_takes_no_time():
    history = History([*RECORDS[:2], dataclasses.replace(RECORDS[2], began=0)])
    assert history.nanoseconds["down"] == 0
    assert history.wall == sum(history.nanoseconds.values()) == (105 + 55) * SECOND


def test_lines_are_read_as_they_were_written(tmp_path):
    write(tmp_path / "log")
    assert read_log(tmp_path / "log") == (RECORDS, 0)


@pytest.mark.parametrize(
    "line",
    [
        b'{"start": 1',
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"step": 3, "loss": 2.0}',
        b"[" * 100_000,
        RECORDS[0].line().replace(b'"step": 10', b'"step": true'),
        RECORDS[0].line().replace(b'"step": 10', b'"step": -1'),
        RECORDS[0].line().replace(b'"step": 10', b'"step": 1' + b"0" * 400),
        RECORDS[0].line().replace(b'"first_step": 0', b'"first_step": 11'),
        RECORDS[0].line().replace(b"10000000000", b"1e10"),
        RECORDS[0].line().replace(b"compiling", b"dreaming"),
        RECORDS[3].line().replace(b"143", b'"143"'),
        RECORDS[0].line().replace(b'"nanoseconds"', b'"seconds"'),
    ],
)
def test_damaged_lines_are_skipped_and_counted(tmp_path, line):
    assert parse(line) is None
    lines = [one.line() for one in RECORDS]
    (tmp_path / "log").write_bytes(b"".join([*lines[:2], line.strip() + b"\n\n", *lines[2:]]))
    assert read_log(tmp_path / "log") == (RECORDS, 1)


def test_a_start_without_a_line_yet():
    history = History([Record(1, 5, 0, 0, 1, 64, {})])
    assert (history.wall, history.steps, history.restarts) == (0, 0, [])
    assert list(history.intervals()) == []
