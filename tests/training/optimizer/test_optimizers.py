import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glm_jax.config import OptimizerConfig
from glm_jax.training.optimizer.optimizers import clip, learning_rate_schedule, make_optimizer

GOLDEN = Path(__file__).parents[2] / "golden" / "glm" / "data" / "lr_schedule.json"
SCHEDULES = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: f"{c['style']}-{c['decay_ratio']}")
def test_schedules_of_the_published_code(case, published):
    """Exact but below the floor, where "linear" never is and "linear_published" goes as it did."""
    num_steps = case["lr_decay_iters"]
    linear = case["style"] == "linear"
    config = OptimizerConfig(
        peak_learning_rate=case["peak_lr"],
        schedule="linear_published" if published and linear else case["style"],
        warmup_steps=round(case["warmup_fraction"] * num_steps),
        final_ratio=case["decay_ratio"],
    )
    schedule = learning_rate_schedule(config, num_steps)
    expected = np.array(case["lr"])
    assert (expected < 0).any() == linear
    if linear and not published:
        beyond = np.array(case["steps"]) > num_steps
        assert (expected[beyond] < case["peak_lr"] * case["decay_ratio"]).all()
        expected[beyond] = case["peak_lr"] * case["decay_ratio"]
    found = [float(schedule(step)) for step in case["steps"]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_decay_steps_end_the_fall_before_the_last_step():
    config = OptimizerConfig(1.0, "linear", warmup_steps=10, decay_steps=20, final_ratio=0.0)
    schedule = learning_rate_schedule(config, num_steps=40)
    np.testing.assert_allclose([schedule(s) for s in (5, 10, 15, 20, 30)], [0.5, 1, 0.5, 0, 0])


def test_the_first_step_is_step_1_of_the_schedule():
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.0), lambda step: 0.5 * step)
    params = {"kernel": jnp.zeros(2)}
    updates, _ = optimizer.update(
        {"kernel": jnp.array([1.0, -3.0])}, optimizer.init(params), params
    )
    # Bias-corrected, the first update is the learning rate times the gradient's sign.
    np.testing.assert_allclose(updates["kernel"], [-0.5, 0.5], rtol=1e-4)


def test_norms_and_biases_do_not_decay_and_tables_do():
    params = {
        "embedding": {"table": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "up": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    }
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.1), lambda step: 0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    decay = jax.tree.map(lambda leaf: round(float(leaf[0]), 6), updates)
    assert decay == {
        "embedding": {"table": -0.05},
        "norm": {"scale": 0.0, "bias": 0.0},
        "up": {"kernel": -0.05, "bias": 0.0},
    }


def test_clip_scales_by_the_published_rule():
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    norm = optax.tree.norm(gradients)
    clipped = clip(gradients, norm, 1.0)
    scale = 1.0 / (5.0 + 1e-6)
    np.testing.assert_allclose([clipped["a"][0], clipped["b"][0]], [3 * scale, 4 * scale])
    assert clip(gradients, norm, None) is gradients
    np.testing.assert_array_equal(clip(gradients, norm, 6.0)["b"], gradients["b"])


def test_an_extended_run_keeps_its_rates_and_goes_over_to_those_of_the_longer_one():
    config = OptimizerConfig(peak_learning_rate=1.0, warmup_steps=10, final_ratio=0.1)
    longer = dataclasses.replace(config, extended=((100, 100), (150, 200)))
    rates = {steps: learning_rate_schedule(config, steps) for steps in (100, 200, 400)}
    rate = learning_rate_schedule(longer, 400)
    for step in (1, 10, 50, 100):
        assert rate(step) == rates[100](step)
    # Half of the way after five of ten steps: from 0.1 to that of a run of 200 steps.
    assert rate(105) == pytest.approx((0.1 + float(rates[200](105))) / 2)
    for step in (110, 149, 150):
        assert float(rate(step)) == pytest.approx(float(rates[200](step)))
    for step in (160, 399, 400, 500):
        assert float(rate(step)) == pytest.approx(float(rates[400](step)))
    assert float(rate(151)) == pytest.approx(
        0.9 * float(rates[200](150)) + 0.1 * float(rates[400](151))
    )


def test_an_extension_without_warm_up_is_at_once_the_longer_run():
    config = OptimizerConfig(schedule="linear", warmup_steps=0, extended=((6, 6),))
    rate = learning_rate_schedule(config, 12)
    longer = learning_rate_schedule(dataclasses.replace(config, extended=None), 12)
    assert float(rate(7)) == pytest.approx(float(longer(7)))
    assert float(rate(6)) == pytest.approx(0.1 * config.peak_learning_rate)
