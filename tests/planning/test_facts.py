"""What is known of a step without compiling it."""

import types

import pytest

from glm_jax.planning.facts import memory_limit, rates


def test_of_a_gpus_memory_jax_takes_a_share(monkeypatch):
    h100 = types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert memory_limit(h100) == pytest.approx(0.75 * 79.11)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    assert memory_limit(h100) == pytest.approx(0.92 * 79.11)
    assert memory_limit(types.SimpleNamespace(device_kind="TPU v5e")) == 15.75


def test_rates_follow_from_the_time_of_a_step():
    # 1000 slots in half a second: 2000 per second, 10^11 in 5 * 10^7 seconds.
    assert rates(1000, 500.0, 100.0) == {
        "model_flops_utilisation": 0.2,
        "tokens_per_second_per_device": 2000.0,
        "chip_hours_for_100b_tokens": pytest.approx(5e7 / 3600),
    }
    assert set(rates(1000, None, 100.0).values()) == {None}
