import dataclasses

from jax.sharding import AbstractMesh, AxisType

from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ExamplesConfig,
    LoraConfig,
    ModelConfig,
    PolicyConfig,
    RolloutsConfig,
    TrainConfig,
)
from glm_jax.sharding.mesh import AXES
from glm_jax.training.memory import (
    answers_at_once,
    cache_slots,
    held_bytes,
    readable,
    rollout_bytes,
)
from glm_jax.training.state import abstract_state

CONFIG = Config(
    ModelConfig(vocab_size=64, num_layers=2, embed_dim=16, num_heads=2, biases="none"),
    DataConfig(sequence_length=32, batch_size=8),
)


def mesh_of(data=1, fsdp=1, tensor=1):
    return AbstractMesh((data, fsdp, tensor, 1), AXES, axis_types=(AxisType.Auto,) * 4)


def held(config, data=1, fsdp=1):
    mesh = mesh_of(data, fsdp)
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


def grpo(**policy):
    return dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, dropout_rate=0.0, attention_dropout_rate=0.0),
        data=DataConfig(source="none", sequence_length=32, batch_size=64),
        examples=ExamplesConfig(format="prompts"),
        train=TrainConfig(loss="grpo"),
        rollouts=RolloutsConfig(group_size=8, max_new_tokens=8, slots=20, reward="a.py:f"),
        policy=PolicyConfig(**policy),
    )


def test_answers_at_once_are_split_over_devices():
    mesh = mesh_of(data=2, fsdp=4, tensor=2)
    # 20 are asked for, of 8 shards of rows; and no more than there are.
    assert answers_at_once(grpo(), 64, mesh) == 24
    assert answers_at_once(grpo(), 3, mesh) == 8
    assert answers_at_once(grpo(), 64, mesh_of()) == 20


def test_bytes_of_rollouts_by_hand():
    config, mesh = grpo(), mesh_of(data=2, fsdp=4, tensor=2)
    assert cache_slots(config) == 64  # 33, rounded up
    # Of 8 shards each has 3 answers, and one of the 4 prompts that wait; keys and values of 2
    # layers, and one of 2 heads of 8 features.
    found = rollout_bytes(config, mesh, abstract_state(config, mesh))
    assert found == {"caches": (3 + 1) * 64 * 2 * 2 * 8 * 4, "reference": 0}
    compared = grpo(kl_beta=0.1)
    state = abstract_state(compared, mesh_of())
    whole = rollout_bytes(compared, mesh_of(), state)
    assert whole["reference"] == held(compared)["parameters"]
    # 20 answers, and room for 2 prompts of 8 answers each.
    assert whole["caches"] == (20 + 2) * 64 * 2 * 2 * 16 * 4
    half = dataclasses.replace(compared, compute=ComputeConfig(dtype="bfloat16"))
    norms = 5 * 2 * 16 * 4
    halved = rollout_bytes(half, mesh_of(), state)
    assert halved["reference"] == (whole["reference"] - norms) // 2 + norms
    assert halved["caches"] == whole["caches"] // 2


def test_readable_sizes():
    assert [readable(n) for n in (5, 1536, 3 << 30, 1 << 41)] == [
        "5.0 B",
        "1.5 KiB",
        "3.0 GiB",
        "2.0 TiB",
    ]
