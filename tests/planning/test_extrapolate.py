import pytest
from jax.sharding import AbstractMesh, AxisType

from glm_jax.config import Config, DataConfig, ModelConfig
from glm_jax.planning.extrapolate import extrapolated
from glm_jax.planning.facts import rates
from glm_jax.sharding.mesh import AXES

CONFIG = Config(
    ModelConfig(vocab_size=64, num_layers=10, embed_dim=16, num_heads=2),
    DataConfig(sequence_length=32, batch_size=8),
)


def of_depth(depth, **changes):
    step = 5.0 + 3.0 * depth
    values = dict.fromkeys(("compute_ms", "step_ms", "ideal_ms", "memory_ms"), step)
    nothing = ("kernel_ms", "waited_ms", "overlapped_ms", "exposed_ms", "collective_gb")
    return {
        **dict.fromkeys(nothing, 0.0),
        **values,
        **rates(64, step, step),
        "peak_hbm_gib": 1.0 + depth,
        "hbm_gib": 16.0,
        "fits": True,
        "failed": None,
        "bytes_per_device": {"temporaries": 100 * depth},
        "compile_seconds": 1.5,
        "top": [],
        "kernels": {},
        "collectives": [],
        "extrapolated": False,
        **changes,
    }


def mesh():
    return AbstractMesh((1, 4, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4)


def test_numbers_go_on_along_the_line_through_both_depths():
    made = extrapolated(CONFIG, mesh(), (2, 4), [of_depth(2), of_depth(4)])
    assert made["extrapolated"]
    assert made["step_ms"] == made["compute_ms"] == 5.0 + 3.0 * 10
    assert made["peak_hbm_gib"] == 11.0
    assert made["bytes_per_device"]["temporaries"] == 1000
    assert made["tokens_per_second_per_device"] == pytest.approx(1e3 * 8 * 32 / 4 / 35.0)
    assert made["compile_seconds"] == 3.0
    assert made["fits"]


def test_what_is_known_of_the_whole_model_is_not_extrapolated():
    made = extrapolated(CONFIG, mesh(), (2, 4), [of_depth(2), of_depth(4)])
    assert made["parameters_by_group"]["mlp"] == 10 * (2 * 16 * 64 + 64 + 16)
    assert made["kernels"] is None


def test_beyond_the_memory_it_does_not_fit():
    small = [of_depth(2, hbm_gib=10.5), of_depth(4, hbm_gib=10.5)]
    assert not extrapolated(CONFIG, mesh(), (2, 4), small)["fits"]


def test_where_a_smaller_model_does_not_fit_the_whole_does_not():
    small = [of_depth(2), of_depth(4, fits=False, step_ms=None)]
    made = extrapolated(CONFIG, mesh(), (2, 4), small)
    assert not made["fits"]
    assert made["step_ms"] is None
    assert made["tokens_per_second_per_device"] is None
