import pytest

from glm_jax.training.watch.pace import Pace


def test_steps_waits_and_pauses_by_a_clock():
    times = iter([0.0, 0.1, 0.3, 1.0, 2.4, 2.4, 12.4, 13.5, 13.5, 15.5])
    pace = Pace(400, lambda: next(times))
    with pace.waiting():  # 0.1 to 0.3
        pass
    pace.step_done()  # 1.0
    pace.step_done()  # 1.4 s later
    pace.pause()
    pace.resume()  # 10 s later
    pace.step_done()  # 1.1 s
    taken = pace.take()
    assert taken == {
        "tokens_per_second": pytest.approx(1200 / 3.5),
        "time/step_ms_p50": pytest.approx(1100.0),
        "time/step_ms_p90": pytest.approx(1340.0),  # 1.1 + 0.8 * 0.3
        "time/step_ms_p99": pytest.approx(1394.0),
        "time/data_stall": pytest.approx(0.2 / 3.5),
    }
    pace.restart()
    pace.step_done()
    again = pace.take()
    assert (again["tokens_per_second"], again["time/data_stall"]) == (200.0, 0.0)


def test_what_is_left_by_what_all_took_so_far():
    """Two steps and an evaluation in 12 s: six steps more will take 36."""
    times = iter([0.0, 1.0, 1.0, 11.0, 12.0, 12.0])
    pace = Pace(400, lambda: next(times))
    pace.step_done()
    pace.pause()
    pace.resume()
    pace.step_done()
    assert pace.seconds_for(6) == pytest.approx(36.0)
