import threading
import time

import numpy as np
import pytest

from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.running_programs import Scores, Told
from glm_jax.generation.sampling import Sampling
from glm_jax.serving.asking import Ask, Chosen, Ended, Scored
from glm_jax.serving.scheduled_row import Row, chosen, scored

SCORES = Scores(
    np.array([-0.5, -2.0]), np.array([[7, 9], [4, 8]]), np.array([[-0.5, -1.5], [-1.0, -1.25]])
)


def ask(**options):
    return Ask(Prompt([1], Limits([3], 5), Sampling()), **options)


@pytest.fixture
def told():
    return []


@pytest.fixture
def row(told):
    return Row(ask(), told.append, threading.Condition())


def test_nothing_is_told_behind_the_end(row, told):
    row.tell(Chosen(4))
    row.tell(Ended("length"))
    row.tell(Chosen(5))
    assert told == [Chosen(4), Ended("length")]
    assert row.ended


def test_why_a_row_is_over():
    late = Row(ask(deadline=time.monotonic() - 1), lambda _: None, threading.Condition())
    assert late.over == "deadline"
    late.cancel()
    assert late.over == "cancelled"
    in_time = Row(ask(deadline=time.monotonic() + 60), lambda _: None, threading.Condition())
    assert in_time.over is None


def test_a_listener_that_fails_wants_no_more(row):
    def fail(event):
        raise RuntimeError

    broken = Row(ask(), fail, threading.Condition())
    broken.tell(Chosen(4))
    assert broken.over == "cancelled"


def test_ids_have_their_scores_and_so_many_alternatives():
    assert scored([7, 8], SCORES, 1) == [
        Scored(7, -0.5, ((7, -0.5),)),
        Scored(8, -2.0, ((4, -1.0),)),
    ]
    assert scored([7], SCORES, 0) == [Scored(7, -0.5, ())]
    assert scored([], SCORES, 2) == []


def test_what_a_step_did_to_a_row():
    step = Told(
        np.array([7, 8]), np.array([0, 2]), np.array([True, True]), np.array([False, True]),
        np.array([False, False]), SCORES,
    )  # fmt: skip
    assert chosen(step, 0, ask()) == Chosen(7)
    assert chosen(step, 1, ask(alternatives=1)) == Chosen(8, 2, True, Scored(8, -2.0, ((4, -1.0),)))
