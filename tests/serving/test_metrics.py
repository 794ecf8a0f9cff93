from glm_jax.serving.metrics import Metrics
from tests.serving.fakes import FakeDecoder, say


def value(metrics, name):
    """The figure of a line that begins with `name`."""
    lines = [line for line in metrics.text().decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[-1])


def test_the_scheduler_s_counts_are_read_when_asked_for():
    decoder = FakeDecoder(say(""), slots=5)
    metrics = Metrics(decoder)
    assert value(metrics, "glm_jax_slots_rows") == 5
    assert value(metrics, "glm_jax_ready") == 1
    decoder.state = "draining"
    decoder._steps = 7
    decoder._ended["end"] = 3
    assert value(metrics, "glm_jax_ready") == 0
    assert value(metrics, "glm_jax_steps_total") == 7
    assert value(metrics, 'glm_jax_ended_rows_total{reason="end"}') == 3


def test_requests_are_counted_by_route_and_status():
    metrics = Metrics(FakeDecoder(say("")))
    for status in (200, 200, 400):
        metrics.count("/v1/models", status)
    assert value(metrics, 'glm_jax_requests_total{route="/v1/models",status="200"}') == 2
    assert value(metrics, 'glm_jax_requests_total{route="/v1/models",status="400"}') == 1


def test_tokens_are_timed_by_row(monkeypatch):
    times = iter([1.5, 1.7, 3.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    metrics = Metrics(FakeDecoder(say("")))
    clock = metrics.clock(2, start=1.0)
    for row in (0, 0, 1):
        clock.token(row)
    monkeypatch.undo()
    assert value(metrics, "glm_jax_time_to_first_token_seconds_count") == 2
    assert value(metrics, "glm_jax_time_to_first_token_seconds_sum") == 2.5
    assert abs(value(metrics, "glm_jax_time_between_tokens_seconds_sum") - 0.2) < 1e-9


def test_two_servers_of_a_process_count_apart():
    one, other = Metrics(FakeDecoder(say(""))), Metrics(FakeDecoder(say("")))
    one.count("/", 200)
    assert b"requests_total{" not in other.text()
