import dataclasses
import json
import math
from pathlib import Path

import jax
import pytest

from glm_jax.checkpoints.conversion import check_target
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.checkpoint import open_directory
from glm_jax.interop.origin import Origin
from glm_jax.interop.save_plan import SaveAs, is_model, plan_save
from glm_jax.models.params import abstract_params
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import make_mesh

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"


def leaves_of(config):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return to_paths(abstract_params(config.resolved(), mesh, listed=True))


def plan(model="chatglm2", names="as_loaded", origin=None, **options):
    checkpoint = open_directory(GOLDEN / model)
    origin = checkpoint.origin if origin is None else origin
    return plan_save(
        checkpoint.config, leaves_of(checkpoint.config), origin, SaveAs(names, **options)
    )


def test_one_file_and_several():
    one = plan()
    assert one.files == ["model.safetensors", "config.json"]
    assert one.num_bytes == 4 * 109_120
    several = plan(max_shard_bytes=150_000)
    assert several.files[0] == "model-00001-of-00004.safetensors"
    assert several.files[4:] == ["model.safetensors.index.json", "config.json"]
    rows = [row.key for shard in several.shards.values() for row in shard]
    assert rows == [row.key for row in one.shards["model.safetensors"]]
    for shard in several.shards.values():
        assert sum(4 * math.prod(row.shape) for row in shard) <= 150_000
    # A tensor that is larger than a file may be has one of its own.
    assert len(plan(max_shard_bytes=1).shards) == len(rows)


def test_as_loaded_keeps_the_whole_config():
    values = json.loads((GOLDEN / "chatglm2" / "config.json").read_text())
    assert plan().values.items() >= values.items()
    assert plan().values["torch_dtype"] == "float32"


def test_native_config_of_an_original_model():
    expected = json.loads((GOLDEN / "chatglm2" / "config_native.json").read_text())
    found = plan(names="native").values
    assert found["architectures"] == ["GlmForCausalLM"]
    for key in (
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "rms_norm_eps",
        "max_position_embeddings",
        "rope_parameters",
        "attention_bias",
        "attention_dropout",
        "tie_word_embeddings",
        "pad_token_id",
        "eos_token_id",
    ):
        assert found[key] == expected[key], key
    # Nothing stays that only the other scheme understands.
    assert not found.keys() & {"num_layers", "kv_channels", "rmsnorm", "padded_vocab_size"}
    assert found["rope_theta"] == 10000.0


def test_original_config_of_a_native_model():
    expected = json.loads((GOLDEN / "glm4_9b" / "config_chatglm.json").read_text())
    found = plan("glm4_9b", "original").values
    del expected["torch_dtype"]
    for key, value in expected.items():
        assert found[key] == value, key
    assert found["dtype"] == "float32"
    assert not found.keys() & {"num_hidden_layers", "rope_parameters", "head_dim", "vocab_size"}


def test_unknown_keys_go_along_in_both_directions():
    for model, names in (("chatglm2", "native"), ("glm4_9b", "original")):
        origin = open_directory(GOLDEN / model).origin
        values = {**origin.values, "my_key": [1], "eos_token_id": [7], "pad_token_id": 3}
        origin = dataclasses.replace(origin, values=values)
        found = plan(model, names, origin).values
        assert (found["my_key"], found["eos_token_id"], found["pad_token_id"]) == ([1], [7], 3)


def test_a_native_config_never_takes_the_padding_of_transformers():
    origin = open_directory(GOLDEN / "chatglm2").origin
    values = {key: value for key, value in origin.values.items() if key != "pad_token_id"}
    origin = dataclasses.replace(origin, values=values)
    assert plan("chatglm2", "native", origin).values["pad_token_id"] is None


def test_a_prefix_stays_where_names_stay():
    origin = Origin(None, "glm.", {})
    assert plan("chatglm2", origin=origin).prefix == ""
    loaded = open_directory(GOLDEN / "chatglm2").origin
    loaded = dataclasses.replace(loaded, prefix="x.")
    assert plan(origin=loaded).prefix == "x."
    assert plan(origin=loaded, names="original").prefix == ""


def test_companions_go_along(tmp_path):
    for name in ("tokenizer.model", "generation_config.json", "modeling_chatglm.py"):
        (tmp_path / name).write_text("x")
    origin = dataclasses.replace(open_directory(GOLDEN / "chatglm2").origin, directory=tmp_path)
    files = plan(origin=origin).files
    assert files[1:] == ["generation_config.json", "tokenizer.model", "config.json"]


def test_what_may_be_replaced(tmp_path):
    for name in ("config.json", "model-00001-of-00002.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("x")
    assert is_model(tmp_path)
    check_target(tmp_path, "huggingface")
    (tmp_path / "thesis.tex").write_text("x")
    assert not is_model(tmp_path)
    for to in ("huggingface", "orbax"):
        with pytest.raises(UserError, match="holds more than a model"):
            check_target(tmp_path, to)


def test_a_tied_matrix_is_written_where_the_code_has_its_own():
    config = dataclasses.replace(open_directory(GOLDEN / "chatglm2").config, tied_embeddings=True)
    keys = {}
    for names in ("original", "native"):
        found = plan_save(config, leaves_of(config), Origin(), SaveAs(names))
        keys[names] = [row.key for row in found.shards["model.safetensors"]]
        assert found.values["tie_word_embeddings"] is True
    assert keys["original"][-1] == "transformer.output_layer.weight"
    assert "lm_head.weight" not in keys["native"]


def test_a_new_model_has_the_config_of_its_format():
    config = ModelConfig(vocab_size=48, num_layers=1, embed_dim=24, num_heads=3)
    assert plan_save(config, leaves_of(config), Origin()).values["block_position_encoding"] is True
