import json

import jax
import pytest

from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig
from glm_jax.planning.chips import CHIPS
from glm_jax.planning.program import compile_program, prepare
from glm_jax.planning.report import report, state_traffic_ms


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


def test_the_state_passes_memory_twice():
    held = {"parameters": 819 * 10**6, "optimizer": 2 * 819 * 10**6, "gradients": 0, "batch": 9}
    # 2.457 GB read and written at 819 GB/s.
    assert state_traffic_ms(held, CHIPS["v5e"]) == pytest.approx(6.0)
