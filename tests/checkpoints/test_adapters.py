"""An adapter is told by its directory: LoRA, prefix, or neither."""

import numpy as np
import pytest

from glm_jax.checkpoints.adapters import Adapter, read_adapter
from glm_jax.checkpoints.loading import load_model
from glm_jax.config import Config
from glm_jax.config.lora import LoraConfig
from glm_jax.errors import UserError
from tests.interop.lora_directories import GOLDEN, base_of, random_pairs, write_lora
from tests.interop.prefix_directories import write_peft, write_ptuning

BASE = GOLDEN / "chatglm" / "chatglm2"


def read(path):
    base = load_model(BASE)
    return read_adapter(path, base.config, base.origin)


def test_a_lora(tmp_path):
    pairs = random_pairs(base_of("chatglm2")[1], ["dense"], 2)
    found = read(write_lora(tmp_path / "lora", pairs))
    assert found.factors.keys() == {f"layers/{i}/attention/out/kernel" for i in (0, 1)}
    assert found.prefix == {}
    assert found.config.prefix_length == 0
    assert str(found) == "LoRA of 2 matrices, rank 2"
    assert (found.is_lora, found.base) == (True, None)


def test_a_prefix(tmp_path):
    for found in (
        read(write_ptuning(tmp_path / "a", "chatglm2", "emb")),
        read(write_peft(tmp_path / "b", "chatglm2")),
    ):
        assert found.factors == {}
        assert [np.shape(array) for array in found.prefix.values()] == [(2, 2, 4, 2, 16)]
        assert found.config.prefix_length == 4
        assert str(found) == "a prefix of 4"
        assert not found.is_lora


def test_a_run():
    config = load_model(BASE).config
    tuned = Adapter(config, run=Config(lora=LoraConfig(rank=4)))
    assert (tuned.is_lora, str(tuned)) == (True, "LoRA, rank 4, of a run of glm_jax")
    other = Adapter(config, run=Config())
    assert (other.is_lora, str(other)) == (False, "the trained part, of a run of glm_jax")


def test_what_is_neither(tmp_path):
    with pytest.raises(UserError, match=r"holds no adapter: neither adapter_config.json"):
        read(tmp_path)
    with pytest.raises(UserError, match="no directory"):
        read(tmp_path / "nothing")
