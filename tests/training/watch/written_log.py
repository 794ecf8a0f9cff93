"""A log of three starts, written by hand, in whole seconds.

start 1, from 100: 10 starting, 20 compiling, steps 1-10 in 50, saved (5), steps 11-14 in 20, killed
nothing for 15
start 2, from 220: 4 starting, 6 compiling, steps 11-20 in 40, saved (5), steps 21-23 in 12, SIGTERM
saved (3), nothing for 10
start 3, from 300: 5 starting, 5 compiling, steps 24-30 in 35, evaluated (7), saved (8), done
"""

from glm_jax.training.watch.goodput_log import Record

SECOND = 10**9


def record(start, began, first_step, step, status=None, **seconds):
    spent = {name: value * SECOND for name, value in seconds.items()}
    processes = 2 if start < 3 else 1
    return Record(start, began * SECOND, first_step, step, processes, 64, spent, status)


FIRST = {"starting": 10, "compiling": 20, "steps": 50, "saving": 5}
SECOND_START = {"starting": 4, "compiling": 6, "steps": 40, "saving": 5}
RECORDS = [
    record(1, 100, 0, 10, **FIRST),
    record(1, 100, 0, 14, **{**FIRST, "steps": 70}),
    record(2, 220, 10, 20, **SECOND_START),
    record(2, 220, 10, 23, 143, **{**SECOND_START, "steps": 52, "saving": 8}),
    record(3, 300, 23, 30, 0, starting=5, compiling=5, steps=35, evaluating=7, saving=8),
]
SPENT = {
    "steps": 137,  # 50 + 40 + 12 + 35
    "compiling": 31,
    "waiting_for_data": 0,
    "rolling_out": 0,
    "saving": 21,
    "evaluating": 7,
    "sampling": 0,
    "starting": 19,
    "other": 0,
    "lost": 20,
    "down": 25,
}
WALL = 260


def write(path, records=RECORDS):
    path.write_bytes(b"".join(one.line() for one in records))
