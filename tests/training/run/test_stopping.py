"""Processes agree on signals by time: threads stand for processes, each with a clock of its own."""

import os
import signal
import threading

import numpy as np
import pytest

from glm_jax.training.run import stopping
from glm_jax.training.run.interrupts import Interrupts
from glm_jax.training.run.stopping import Stopping


class Together:
    """`gathered` and `share` of so many threads."""

    def __init__(self, count, monkeypatch):
        self.count, self.own, self.rows = count, threading.local(), [None] * count
        self.barrier = threading.Barrier(count)
        self.times = 0
        monkeypatch.setattr(stopping, "gathered", self.gathered)
        monkeypatch.setattr(stopping, "share", lambda: (self.own.index, count))

    def gathered(self, values):
        self.rows[self.own.index] = values
        self.barrier.wait(20)
        found = np.array(self.rows)
        if self.barrier.wait(20) == 0:
            self.times += 1
        return found

    def run(self, act):
        """What `act(index)` gives on each thread."""
        done = [None] * self.count

        def start(index):
            self.own.index = index
            done[index] = act(index)

        threads = [threading.Thread(target=start, args=(index,)) for index in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return done


def steps_until_stop(stop, seconds, clock, most=10_000, received=lambda step: None):
    """The step after which it stops, of steps of so many seconds by its own clock."""
    for step in range(1, most):

        def finish():
            clock[0] += seconds

        received(step)
        before = clock[0]
        if stop.after(step, finish):
            return step
        if clock[0] == before:
            finish()
    return None


@pytest.mark.parametrize(
    ("seconds", "first", "latest"),
    [
        # An agreement a second: ten steps of 0.1 s, a hundred of 0.01 s; each step of 20 s.
        (0.1, 205, 215),
        (0.01, 205, 305),
        (20.0, 205, 205),
    ],
)
def test_a_signal_on_one_stops_all_at_the_same_step(monkeypatch, seconds, first, latest):
    together = Together(3, monkeypatch)

    def act(index):
        clock = [1000.0 * index]
        interrupts = Interrupts()
        stop = Stopping(interrupts, 0, 25.0, lambda: clock[0])

        def received(step):
            if index == 2 and step == 205:
                interrupts.receive(signal.SIGTERM, 0.0)

        # Process 1's steps seem half as long to it: the interval is process 0's.
        pace = seconds / 2 if index == 1 else seconds
        found = steps_until_stop(stop, pace, clock, received=received)
        return found, interrupts.received_name, interrupts.exit_status

    ends = together.run(act)
    assert len(set(ends)) == 1
    step, name, status = ends[0]
    assert (name, status) == ("SIGTERM", 143)
    assert first <= step <= latest
    assert together.times <= 205 * max(seconds, 0.02) + 5


def test_an_agreement_takes_less_than_a_hundredth_of_the_time(monkeypatch):
    clock, asked = [0.0], []

    def gathered(values):
        asked.append(clock[0])
        clock[0] += 0.03
        return np.array([values, [0, 0, 1]])

    monkeypatch.setattr(stopping, "gathered", gathered)
    monkeypatch.setattr(stopping, "share", lambda: (0, 2))
    stop = Stopping(Interrupts(), 0, 25.0, lambda: clock[0])
    assert steps_until_stop(stop, 0.1, clock, most=1000) is None
    assert 0.03 * len(asked) < 0.011 * clock[0]
    assert max(np.diff(asked[3:])) <= 3.2


def test_agreements_are_a_fifth_of_the_deadline_apart_at_most(monkeypatch):
    clock, asked = [0.0], []

    def gathered(values):
        asked.append(clock[0])
        clock[0] += 1.0  # a hundred of these would be 100 s
        return np.array([values, [0, 0, 1]])

    monkeypatch.setattr(stopping, "gathered", gathered)
    monkeypatch.setattr(stopping, "share", lambda: (0, 2))
    stop = Stopping(Interrupts(), 0, 10.0, lambda: clock[0])
    steps_until_stop(stop, 0.1, clock, most=500)
    assert max(np.diff(asked)) <= 1.0 + 2.0 + 0.2


def test_the_age_of_a_signal_reaches_the_others(monkeypatch):
    monkeypatch.setattr(stopping, "share", lambda: (0, 2))
    monkeypatch.setattr(stopping, "gathered", lambda own: np.array([own, [signal.SIGINT, 7000, 3]]))
    interrupts = Interrupts()
    assert Stopping(interrupts, 0, 25.0).after(1, lambda: None)
    assert 7 <= interrupts.age < 8
    assert interrupts.exit_status == 130


def test_alone_a_signal_counts_after_each_step_and_in_it(monkeypatch):
    clock = [0.0]
    with Interrupts() as interrupts:
        stop = Stopping(interrupts, 0, 25.0, lambda: clock[0])
        finished = []
        clock[0] += 2.0
        assert not stop.after(1, lambda: finished.append(1))
        clock[0] += 0.001
        assert not stop.after(2, lambda: finished.append(2))
        assert not stop.after(3, lambda: finished.append(3))
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.after(4, lambda: finished.append(4))
    # Steps 1 and 2 were agreements; after the third nobody waited for the device.
    assert finished == [1, 2]
    # A step that takes long: the signal comes in it, and it is the last.
    with Interrupts() as interrupts:
        stop = Stopping(interrupts, 0, 25.0)
        assert stop.after(1, lambda: os.kill(os.getpid(), signal.SIGINT))
