import json
import types

import jax
import pytest

from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig
from glm_jax.planning.chips import CHIPS
from glm_jax.planning.program import compile_program, prepare
from glm_jax.planning.report import memory_limit, rates, report, state_traffic_ms


@pytest.fixture(scope="module")
def made():
    config = Config(
        ModelConfig(vocab_size=64, num_layers=1, embed_dim=16, num_heads=2, max_positions=32),
        DataConfig(sequence_length=32, batch_size=8),
        mesh=MeshConfig(data=1, sequence=-1),
    )
    return report(compile_program(*prepare(config, jax.devices())))


def test_a_report_is_json_and_has_what_checks_ask_for(made):
    assert json.loads(json.dumps(made)) == made
    for name in ("num_devices", "parameters", "flops_per_token", "peak_hbm_gib", "fits"):
        assert made[name] is not None, name
    assert made["topology"] is None
    assert made["parameters"] == sum(made["parameters_by_group"].values())
    assert made["sequences_per_chip"] == 8


def test_other_devices_than_tpus_have_no_times_but_the_same_keys(made):
    assert made["fits"]
    assert made["hbm_gib"] is None
    for name in ("compute_ms", "step_ms", "tokens_per_second_per_device", "collective_gb", "top"):
        assert made[name] is None, name


def test_of_a_gpus_memory_jax_takes_a_share(monkeypatch):
    h100 = types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert memory_limit(h100) == pytest.approx(0.75 * 79.11)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    assert memory_limit(h100) == pytest.approx(0.92 * 79.11)
    assert memory_limit(types.SimpleNamespace(device_kind="TPU v5e")) == 15.75


def test_the_state_passes_memory_twice():
    held = {"parameters": 819 * 10**6, "optimizer": 2 * 819 * 10**6, "gradients": 0, "batch": 9}
    # 2.457 GB read and written at 819 GB/s.
    assert state_traffic_ms(held, CHIPS["v5e"]) == pytest.approx(6.0)


def test_rates_follow_from_the_time_of_a_step():
    # 1000 slots in half a second: 2000 per second, 10^11 in 5 * 10^7 seconds.
    assert rates(1000, 500.0, 100.0) == {
        "model_flops_utilisation": 0.2,
        "tokens_per_second_per_device": 2000.0,
        "chip_hours_for_100b_tokens": pytest.approx(5e7 / 3600),
    }
    assert set(rates(1000, None, 100.0).values()) == {None}
