"""The configs of alignment: what each trains, by arithmetic, and what they have in common."""

from pathlib import Path

import jax
import pytest

from glm_jax.batch import RolloutBatch, ScoredBatch
from glm_jax.config import MeshConfig
from glm_jax.config.files import load_config
from glm_jax.models.flops import trained_parameters
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.memory import bytes_per_device, rollout_bytes
from glm_jax.training.run.workdir import check_config
from glm_jax.training.state import abstract_state
from glm_jax.training.step import abstract_batch

FOLDER = Path(__file__).parents[2] / "configs" / "align"


def test_all_of_them_are_looked_at():
    names = {"chatglm3_6b_dpo_lora", "chatglm3_6b_grpo_lora", "dpo_cpu", "reward_cpu"}
    names |= {"guesser_cpu", "grpo_cpu", "ppo_cpu", "bundled_cpu"}
    assert {path.stem for path in FOLDER.glob("*.py")} == names


def test_the_real_one():
    """r (inputs + outputs) of queries and outputs, keys and values, and three of the MLP."""
    config = load_config(FOLDER / "chatglm3_6b_dpo_lora.py")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    check_config(config, mesh, vocab_size=64796)
    state = abstract_state(config, mesh)
    of_layer = 16 * (2 * (4096 + 4096) + 2 * (4096 + 256) + 3 * (4096 + 13696))
    assert trained_parameters(state.trainable) == 28 * of_layer
    assert bytes_per_device(state.frozen) / 2**30 == pytest.approx(11.6, abs=0.1)
    assert config.has_reference
    batch = abstract_batch(config, mesh)
    assert isinstance(batch, ScoredBatch)
    assert batch.reference.shape == (32, 2048)


def test_the_real_one_of_rollouts():
    """Caches of 64 answers and 8 prompts, 2,560 slots each: keys and values of two heads of 128, 2
    bytes each; and the adapters once more, float32 as they are trained."""
    config = load_config(FOLDER / "chatglm3_6b_grpo_lora.py")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    check_config(config, mesh, vocab_size=64796)
    found = rollout_bytes(config, mesh, abstract_state(config, mesh))
    assert found["caches"] == 72 * 2560 * 28 * 2 * 2 * 128 * 2
    adapters = 28 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 256) + 3 * (4096 + 13696))
    assert found["reference"] == 4 * adapters
    batch = abstract_batch(config, mesh)
    assert isinstance(batch, RolloutBatch)
    assert batch.old.shape == batch.reference.shape == (128, 2048)
    assert batch.returns is None


def test_grpo_and_ppo_ask_the_same():
    grpo, ppo = (load_config(FOLDER / f"{name}_cpu.py") for name in ("grpo", "ppo"))
    assert grpo.data == ppo.data
    assert (grpo.rollouts.steps, ppo.rollouts.steps) == (1, 2)
    assert (grpo.rollouts.reward, ppo.model.value_head) == (ppo.rollouts.reward, True)
    assert grpo.rollouts.reward == "examples/counting/rewards.py:exact"
    assert load_config(FOLDER / "guesser_cpu.py").examples.format == "prompt_response"


def test_the_small_ones_have_the_same_pairs():
    dpo, reward = (load_config(FOLDER / f"{name}_cpu.py") for name in ("dpo", "reward"))
    assert dpo.data == reward.data
    assert (dpo.train.loss, dpo.has_reference) == ("dpo", True)
    assert dpo.train.limits == {"kl/k2": 20.0}
    assert (reward.train.loss, reward.has_reference) == ("reward", False)
    assert reward.model.value_head
