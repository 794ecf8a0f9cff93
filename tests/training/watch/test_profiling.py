import jax.numpy as jnp
import pytest

from glm_jax.errors import UserError
from glm_jax.training.watch import profiling
from glm_jax.training.watch.profiling import ProfiledSteps, Profiler


@pytest.mark.parametrize("text", ["20", "0:5", "3:0", "a:b", "3:-1", "1:2:3", "9" * 5000 + ":1"])
def test_what_is_not_first_and_count(text):
    with pytest.raises(UserError, match=r"FIRST:COUNT.*got"):
        ProfiledSteps.parse(text)


@pytest.mark.parametrize(
    ("text", "first_step", "calls"),
    [("2:2", 1, ["2 start", "3 stop"]), ("1:4", 3, ["3 start", "4 stop"]), ("9:1", 1, ["5 stop"])],
)
def test_the_trace_spans_its_steps(monkeypatch, tmp_path, text, first_step, calls):
    """A run that goes on within the steps traces the rest of them; one that ends, what there is."""
    seen, step = [], 0
    monkeypatch.setattr(
        profiling.jax.profiler, "start_trace", lambda path: seen.append(f"{step} start")
    )
    monkeypatch.setattr(profiling.jax.profiler, "stop_trace", lambda: seen.append(f"{step} stop"))
    profiler = Profiler(ProfiledSteps.parse(text), tmp_path / "profile")
    for step in range(first_step, 6):
        profiler.before(step)
        said = profiler.after(step, jnp.zeros(1))
        assert (said is not None) == (f"{step} stop" in seen and seen[-1] == f"{step} stop")
    profiler.close()
    assert seen == (calls if text != "9:1" else [])


def test_no_steps_no_trace(tmp_path):
    profiler = Profiler(None, tmp_path)
    profiler.before(1)
    assert profiler.after(1, None) is None
    profiler.close()
