import dataclasses

import pytest

from glm_jax.config import ComputeConfig, Config, DataConfig, ModelConfig
from glm_jax.models.variants import CHATGLM2_6B
from glm_jax.planning.chips import CHIPS
from glm_jax.planning.scaling import Model, Slice, cost_on, model_of, share_reached, state_bytes
from glm_jax.training.memory import GIB

V5E = CHIPS["v5e"]
# 10^9 parameters in one matrix; a step of 1000 slots is 197 GFLOP, a millisecond of v5e's peak.
MODEL = Model({"layers/mlp/up/kernel": (1, 512, 1_953_125)}, 197e6, 1000, saved=GIB)


def test_a_step_is_its_flops_at_the_share_and_the_sum_of_gradients():
    cost = cost_on(MODEL, Slice(V5E, (4, 4)), share=0.5)
    assert cost.time.compute_ms == pytest.approx(2.0)
    # 4x4 has two links of 50 GB/s. An all-reduce of 2 GB sends 2 x 15/16 of it: 37.5 ms.
    assert cost.time.waited_ms == pytest.approx(37.5)
    # Two gathers of 2 GB send 4 x 15/16 GB, of which 2 ms are hidden.
    assert cost.time.overlapped_ms == pytest.approx(37.5)
    assert cost.step_ms == pytest.approx(2.0 + 37.5 + 35.5)
    assert cost.tokens_per_second == pytest.approx(1000 / 0.075)
    assert cost.share_of_peak == pytest.approx(1.0 / 75.0)


def test_a_pod_that_wraps_around_has_twice_the_links():
    cost = cost_on(MODEL, Slice(V5E, (16, 16)), share=0.5)
    assert cost.time.waited_ms == pytest.approx(2e3 * 2 * 255 / 256 / 200)


def test_v5p_waits_for_its_gathers():
    cost = cost_on(MODEL, Slice(CHIPS["v5p"], (4, 4, 4)), share=0.5)
    # Six links of 100 GB/s; 2 x 63/64 of 2 GB for the sum, and as much for two gathers.
    assert cost.gradient_ms == pytest.approx(1e3 * 2 * 2 * 63 / 64 / 600)
    assert cost.time.waited_ms == pytest.approx(2 * cost.gradient_ms)
    assert cost.time.overlapped_ms == 0.0


def test_several_slices_add_their_sum():
    one, two = (cost_on(MODEL, Slice(V5E, (16, 16), count), 0.5) for count in (1, 2))
    # 2 GB over 32 hosts at 25 GB/s: 2.5 ms.
    assert two.step_ms - one.step_ms == pytest.approx(2.5)
    with pytest.raises(KeyError):
        cost_on(MODEL, Slice(CHIPS["v5p"], (8, 8, 8), 2), 0.5)


def test_the_least_is_the_state_over_the_slice_and_the_inputs_of_layers():
    # 14 bytes each: a float32 with two moments, and a gradient in bfloat16.
    assert state_bytes(MODEL, 16) == 14 * 10**9 // 16
    cost = cost_on(MODEL, Slice(V5E, (4, 4)), 0.5)
    assert cost.least_gib == pytest.approx(14e9 / 16 / GIB + 1.0)


def test_the_facts_of_a_config():
    config = Config(
        model=dataclasses.replace(ModelConfig(), num_layers=3, embed_dim=64, num_heads=4),
        data=DataConfig(sequence_length=128),
        compute=ComputeConfig(dtype="bfloat16"),
    )
    model = model_of(config, rows_per_chip=2)
    assert model.slots == 256
    assert model.saved == 256 * 64 * 3 * 2
    published = model_of(dataclasses.replace(config, model=CHATGLM2_6B), 1)
    assert published.parameters == 6_243_584_000


def test_the_share_is_the_inverse_of_the_time():
    assert share_reached(MODEL, V5E, 2.0) == pytest.approx(0.5)
