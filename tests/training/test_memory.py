import dataclasses

from jax.sharding import AbstractMesh, AxisType

from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    LoraConfig,
    ModelConfig,
    TrainConfig,
)
from glm_jax.sharding.mesh import AXES
from glm_jax.training.memory import held_bytes, readable
from glm_jax.training.state import abstract_state

CONFIG = Config(
    ModelConfig(vocab_size=64, num_layers=2, embed_dim=16, num_heads=2, biases="none"),
    DataConfig(sequence_length=32, batch_size=8),
)


def held(config, data=1, fsdp=1):
    mesh = AbstractMesh((data, fsdp, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4)
    return held_bytes(config, mesh, abstract_state(config, mesh))


def test_kinds_on_one_device_by_hand():
    # The table, two tables of 513 positions, two layers of 12 D^2, five norms of scale and bias.
    matrices = 64 * 16 + 2 * 513 * 16 + 2 * 12 * 16 * 16
    numbers = matrices + 5 * 2 * 16
    found = held(CONFIG)
    assert found["parameters"] == numbers * 4
    # Two moments and, at most, a few counters.
    assert 0 <= found["optimizer"] - numbers * 8 <= 32
    assert found["gradients"] == numbers * 4
    assert found["batch"] == 8 * 8 * 32 * 4


def test_fsdp_splits_state_and_batch():
    whole, split = held(CONFIG, data=8), held(CONFIG, fsdp=8)
    norms = 5 * 2 * 16 * 4
    assert split["parameters"] - norms == (whole["parameters"] - norms) // 8
    assert split["batch"] == whole["batch"] == 8 * 1 * 32 * 4


def test_gradients_of_matrices_have_the_dtype_of_activations_but_sums_over_micro_batches_do_not():
    half = dataclasses.replace(CONFIG, compute=ComputeConfig(dtype="bfloat16"))
    found = held(half)
    norms = 5 * 2 * 16 * 4
    assert found["gradients"] == (found["parameters"] - norms) // 2 + norms
    accumulated = dataclasses.replace(half, train=TrainConfig(accumulation_steps=2))
    assert held(accumulated)["gradients"] == found["parameters"]


def test_what_is_frozen_has_no_gradients_and_int4_takes_half_a_byte():
    model = dataclasses.replace(CONFIG.model, param_dtype="bfloat16")
    lora = LoraConfig(rank=2, targets="mlp/up")
    plain = dataclasses.replace(CONFIG, model=model, lora=lora)
    adapters = 2 * (16 * 2 + 2 * 64)
    numbers = 64 * 16 + 2 * 513 * 16 + 2 * 12 * 16 * 16 + 5 * 2 * 16
    found = held(plain)
    assert found["parameters"] == 2 * numbers + 4 * adapters
    assert found["gradients"] == 4 * adapters
    assert 0 <= found["optimizer"] - 8 * adapters <= 32
    packed = dataclasses.replace(plain, train=TrainConfig(quantize_base="int4"))
    # 12 D^2 of a layer take half a byte instead of two; float16 scales of 9 D outputs.
    less = 2 * (12 * 16 * 16 * 3 // 2 - 2 * 9 * 16)
    assert held(packed)["parameters"] == found["parameters"] - less


def test_readable_sizes():
    assert [readable(n) for n in (5, 1536, 3 << 30, 1 << 41)] == [
        "5.0 B",
        "1.5 KiB",
        "3.0 GiB",
        "2.0 TiB",
    ]
