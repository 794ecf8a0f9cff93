"""The first lines of a run, against arithmetic."""

from types import SimpleNamespace

import jax

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    MeshConfig,
    ModelConfig,
    ObjectiveConfig,
    RolloutsConfig,
    TrainConfig,
)
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.watch.summary import kept_line, summary


def test_the_lines_say_what_the_run_holds_and_does():
    config = Config(
        ModelConfig(vocab_size=64, num_layers=1, embed_dim=16, num_heads=2, max_positions=31),
        DataConfig(sequence_length=32, batch_size=8),
        ObjectiveConfig(span_rate=0.0, causal_rate=1.0),
        train=TrainConfig(num_steps=50),
        mesh=MeshConfig(data=1, sequence=-1),
    )
    mesh = make_mesh(config.mesh)
    model, memory, devices, step, data, start = summary(config, mesh, 100, "a new run").splitlines()
    # 64 words and 2 x 32 positions of 16; 4 and 8 D^2 with their biases; 3 norms of 2 D.
    assert model.split(maxsplit=1)[1] == (
        "5,360 parameters: embedding 2,048, attention 1,088, mlp 2,128, norms 96"
    )
    assert "parameters 20.9 KiB, optimizer 41.9 KiB, gradients 20.9 KiB" in memory
    assert devices.split()[1] == str(mesh.size)
    flops = 6 * (12 * 256 + 64 * 16) + 12 * 16 * 32 * 0.5
    assert step.endswith(f"8 rows x 32 slots = 256 tokens of {flops:.3g} FLOPs")
    assert data.endswith("100 rows per epoch; 50 steps are 4.0 epochs")
    assert start.endswith("a new run")


def test_of_rollouts_it_says_what_they_take():
    config = Config(
        ModelConfig(
            vocab_size=64,
            num_layers=1,
            embed_dim=16,
            num_heads=2,
            max_positions=31,
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
        ),
        DataConfig(source="none", sequence_length=32, batch_size=8),
        examples=ExamplesConfig(format="prompts"),
        train=TrainConfig(num_steps=50, loss="grpo"),
        rollouts=RolloutsConfig(group_size=4, max_new_tokens=8, reward="a.py:f"),
    )
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    lines = summary(config, mesh, 100, "a new run").splitlines()
    # 8 answers and 2 prompts of 64 slots, keys and values of 16 features.
    assert ("rollouts    8 answers to 2 prompts, 8 at once; per device caches 80.0 KiB") in lines


def test_what_is_kept_is_what_a_step_works_in():
    memory = SimpleNamespace(temp_size_in_bytes=3 * 2**20 // 2)
    line = kept_line(SimpleNamespace(memory_analysis=lambda: memory))
    assert line.startswith("kept        1.5 MiB of a step's temporaries")
    assert line.endswith("train.keep_freed_memory=False gives it back")
