"""The configs of tuning: what each trains of ChatGLM2-6B, by arithmetic."""

from pathlib import Path

import jax
import pytest

from glm_jax.config import MeshConfig
from glm_jax.config.files import load_config
from glm_jax.models.flops import trained_parameters
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.memory import bytes_per_device
from glm_jax.training.state import abstract_state

FOLDER = Path(__file__).parents[2] / "configs" / "finetune"
# r (inputs + outputs) of queries (4096 to 4096), keys and values (4096 to 256), 28 layers.
LORA = 28 * 8 * (2 * 4096 + 2 * (4096 + 256))
# 28 layers, keys and values of 2 heads of 128, at 128 places.
PREFIX = 28 * 2 * 128 * 2 * 128
TRAINED = {
    "chatglm2_6b_lora_h100": LORA,
    "chatglm2_6b_lora_v5e": LORA,
    "chatglm2_6b_qlora_v5e": LORA,
    "chatglm2_6b_ptuning": PREFIX,
}


def test_all_of_them_are_looked_at():
    assert {path.stem for path in FOLDER.glob("chatglm2_6b_*.py")} == set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_and_what_it_takes(name):
    config = load_config(FOLDER / f"{name}.py")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = abstract_state(config, mesh)
    assert trained_parameters(state.trainable) == TRAINED[name]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.trainable)} == {"float32"}
    gib = bytes_per_device(state.frozen) / 2**30
    # 6.24 billion parameters in two bytes; of int4 the layers' half a byte, the tables two.
    assert gib == pytest.approx(3.7 if "qlora" in name else 11.6, abs=0.1)
