import pytest
from jax.sharding import AbstractMesh, AxisType

from glm_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, TrainConfig
from glm_jax.planning.chips import CHIPS
from glm_jax.planning.estimate import (
    StepTime,
    collective_seconds,
    expected_turns,
    kernel_flops,
    links_used,
    step_time,
)
from glm_jax.planning.hlo import Collective, HloCost, Kernel
from glm_jax.sharding.mesh import AXES

V5E = CHIPS["v5e"]
CONFIG = Config(
    ModelConfig(num_layers=2, embed_dim=256, num_heads=4),
    DataConfig(sequence_length=128, batch_size=32),
    ObjectiveConfig(span_rate=0.0, causal_rate=1.0),
)


def mesh(data=1, fsdp=1, tensor=1, sequence=1):
    sizes = (data, fsdp, tensor, sequence)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 4)


def cost(seconds=0.0, kernels=(), collectives=(), product_flops=0.0):
    return HloCost(seconds, product_flops, 0, tuple(kernels), tuple(collectives), (), ())


@pytest.mark.parametrize(
    ("kind", "num_bytes", "passed"),
    [
        # Of 16 chips each passes on 15 of 16 parts; a scatter's bytes are those of one part.
        ("all-gather", 160, 150),
        ("all-reduce", 160, 300),
        ("reduce-scatter", 10, 150),
        ("all-to-all", 160, 150),
    ],
)
def test_bytes_that_pass_a_link(kind, num_bytes, passed):
    one = Collective(kind, 16, 1, False, 1, num_bytes)
    assert collective_seconds(one, V5E, (4, 4), 16) == pytest.approx(passed / 50e9)


def test_a_permute_passes_everything_once():
    one = Collective("collective-permute", 2, None, True, 1, 100)
    assert collective_seconds(one, V5E, (16, 16), 256) == pytest.approx(100 / (2 * 50e9))


@pytest.mark.parametrize(
    ("chip", "sides", "group", "colors", "links"),
    [
        ("v5e", (4, 4), 16, None, 2),
        ("v5e", (4, 4), 16, 4, 2),
        ("v5e", (4, 4), 4, None, 1),
        ("v5e", (16, 16), 256, 4, 4),
        ("v5e", (16, 16), 256, 1, 1),
        ("v5e", (8, 16), 16, None, 2),
        ("v5p", (4, 4, 4), 64, None, 6),
        ("v5p", (2, 2, 1), 4, None, 2),
        ("v5e", (1, 1), 1, None, 1),
        ("h100", (8,), 8, None, 1),
    ],
)
def test_links_that_there_are(chip, sides, group, colors, links):
    one = Collective("all-gather", group, colors, False)
    devices = 1
    for side in sides:
        devices *= side
    assert links_used(one, CHIPS[chip], sides, devices) == links


def test_flops_of_attention_kernels_by_hand():
    kernels = [
        Kernel("interval_attention_forward", 4, 0),
        Kernel("interval_attention_query_gradient", 2, 0),
        Kernel("interval_attention_key_gradient", 2, 0),
        Kernel("another", 3, 1000),
        Kernel("unknown", 1, 0),
    ]
    total, unknown = kernel_flops(kernels, CONFIG, mesh(data=2, fsdp=4, tensor=2))
    # 4 rows per device, half of the heads, half of 128 x 128 pairs, 256 features.
    product = 4 / 2 * 2 * 128 * 128 * 0.5 * 256
    assert total == (4 * 2 + 2 * 3 + 2 * 4) * product + 1000
    assert unknown == ("unknown",)


def test_a_step_is_the_sum_of_its_parts():
    collectives = [
        Collective("all-gather", 4, 1, True, 1, 4 * 50_000_000),
        Collective("all-reduce", 4, 1, False, 1, 4 * 50_000_000),
    ]
    found = step_time(cost(1e-3, (), collectives), CONFIG, mesh(fsdp=4), V5E, (2, 2))
    assert found.compute_ms == pytest.approx(1.0)
    assert (found.overlapped_ms, found.waited_ms) == (pytest.approx(3.0), pytest.approx(6.0))
    # Two of the three milliseconds find nothing to hide behind.
    assert found.exposed_ms == pytest.approx(8.0)
    assert found.step_ms == pytest.approx(9.0)


def test_collectives_hide_behind_compute_and_kernels():
    assert StepTime(2.0, 3.0, 1.0, 4.0).step_ms == 6.0


def test_products_without_an_estimate_run_at_three_quarters_of_the_peak():
    found = step_time(cost(1e-3, product_flops=0.74 * 989e9), CONFIG, mesh(), CHIPS["h100"], ())
    assert found.compute_ms == pytest.approx(2.0)


def test_a_gpu_passes_everything_through_one_port():
    gathered = Collective("all-gather", 8, None, True, 1, 8 * 450_000_000)
    found = step_time(cost(0.0, (), [gathered]), CONFIG, mesh(fsdp=8), CHIPS["h100"], ())
    assert found.overlapped_ms == pytest.approx(7.0)


def test_kernels_run_at_half_the_peak():
    kernels = [Kernel("interval_attention_forward", 1, 0)]
    found = step_time(cost(0.0, kernels), CONFIG, mesh(fsdp=4), V5E, (2, 2))
    flops = 8 * 2 * 2 * 128 * 128 * 0.5 * 256
    assert found.step_ms == pytest.approx(1e3 * flops / (0.5 * 197e12))


def test_turns_of_the_loop_over_predicted_places():
    def turns(rate, **train):
        objective = ObjectiveConfig(
            span_rate=0.0, sentence_rate=1 - rate, causal_rate=rate, sentence_mask_ratio=0.25
        )
        config = Config(CONFIG.model, CONFIG.data, objective, train=TrainConfig(**train))
        return expected_turns(config, mesh(fsdp=4))

    # 8 rows of 128 slots per device: all 1024 predicted, or a quarter of them.
    assert turns(1.0, loss_chunk=256) == 4
    assert turns(0.0, loss_chunk=256) == 1
    assert turns(0.0, loss_chunk=100) == 3
    assert turns(1.0, loss_chunk=256, accumulation_steps=2) == 2
