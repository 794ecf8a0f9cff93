import time

from glm_jax.training.run import beginning


def test_the_first_run_of_a_command_began_with_it(monkeypatch):
    monkeypatch.setattr(beginning, "_began", [])
    before = time.monotonic_ns()
    assert beginning.beginning() >= before
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5)
    beginning.process_begins()
    beginning.process_begins()
    monkeypatch.setattr(time, "monotonic_ns", lambda: 9)
    assert beginning.beginning() == 5
    assert beginning.beginning() == 9
