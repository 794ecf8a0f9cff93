"""Directories of prefixes, read and written: P-Tuning, PEFT, whole models, and what is neither."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.errors import UserError
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.trees import to_paths
from tests.interop.prefix_directories import (
    ENCODER,
    GOLDEN,
    MODELS,
    batch_of_model,
    encoder,
    vectors_of,
    write_peft,
    write_ptuning,
)

EVERY = [f"{name}-{form}" for name in MODELS for form in ("emb", "proj")]


def load(name, adapter, **options):
    return glm_jax.load(GOLDEN / name, adapter=adapter, **options)


def same(one, other):
    ours, theirs = to_paths(one), to_paths(other)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)


@pytest.mark.parametrize("case", EVERY)
@pytest.mark.parametrize("format", ["ptuning", "huggingface", "orbax"])
def test_what_is_saved_is_loaded_bit_for_bit(case, format, tmp_path):
    name, form = case.split("-")
    model = load(name, write_ptuning(tmp_path / "prefix", name, form))
    model.save(tmp_path / "saved", format=format)
    if format == "ptuning":
        written = load_file(tmp_path / "saved/model.safetensors")
        assert written.keys() == encoder(name, form).keys()
        for key, value in encoder(name, form).items():
            np.testing.assert_array_equal(written[key], value)
        again = load(name, tmp_path / "saved")
    else:
        again = glm_jax.load(tmp_path / "saved")
    assert again.config == model.config
    same(again.params, model.params)
    if format != "ptuning":
        half = glm_jax.load(tmp_path / "saved", dtype="bfloat16")
        same(half.params["prefix"], model.params["prefix"])
        assert half.params["embedding"]["table"].dtype == "bfloat16"
    # In the place of what lies there already.
    again.save(tmp_path / "saved", format=format)


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_with_its_prefix_in_published_names(name, tmp_path):
    model = load(name, write_ptuning(tmp_path / "prefix", name, "proj"))
    model.save(tmp_path / "whole")
    values = json.loads((tmp_path / "whole/config.json").read_text())
    assert (values["pre_seq_len"], values["prefix_projection"]) == (
        model.config.prefix_length,
        True,
    )
    written = load_file(tmp_path / "whole/model.safetensors")
    assert {k for k in written if k.startswith(ENCODER)} == encoder(name, "proj").keys()
    bare = load_file(GOLDEN / name / "model.safetensors")
    assert written.keys() == bare.keys() | encoder(name, "proj").keys()


@pytest.mark.parametrize("case", EVERY)
def test_peft_has_what_the_encoder_makes(case, tmp_path):
    name, form = case.split("-")
    model = load(name, write_ptuning(tmp_path / "prefix", name, form))
    model.save(tmp_path / "peft", format="peft")
    about = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert (about["peft_type"], about["num_virtual_tokens"]) == (
        "PREFIX_TUNING",
        model.config.prefix_length,
    )
    assert about["token_dim"] * about["num_layers"] * 2 == model.config.prefix_row
    tensors = load_file(tmp_path / "peft/adapter_model.safetensors")
    vectors = vectors_of(name)
    heads = vectors[f"{form}_layer0_prefix_key"].shape
    rows = tensors["prompt_embeddings"].reshape(heads[0], -1, 2, *heads[1:])
    for index, what in enumerate(("key", "value")):
        theirs = vectors[f"{form}_layer0_prefix_{what}"]
        np.testing.assert_allclose(rows[:, 0, index], theirs, atol=1e-5, rtol=0)
    again = load(name, tmp_path / "peft")
    assert again.config.prefix_projection is None
    batch, real = batch_of_model(name)
    ours = np.asarray(again.logits(batch))[..., ::4]
    np.testing.assert_allclose(ours[real], vectors[f"{form}_logits"][real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_directory_of_peft(name, tmp_path):
    model = load(name, write_peft(tmp_path / "peft", name))
    batch, real = batch_of_model(name)
    ours = np.asarray(model.logits(batch))[..., ::4]
    np.testing.assert_allclose(ours[real], vectors_of(name)["emb_logits"][real], atol=1e-4, rtol=0)
    model.save(tmp_path / "again", format="peft")
    (stored,) = encoder(name, "emb").values()
    written = load_file(tmp_path / "again/adapter_model.safetensors")["prompt_embeddings"]
    np.testing.assert_array_equal(written, stored)


def test_in_transformers_positions_begin_behind_the_prefix(tmp_path):
    """PEFT 0.21.2 around transformers 5.23.0's GlmForCausalLM: their logits, by their prefix."""
    vectors = np.load(GOLDEN / "glm4_9b" / "peft_prefix.npz")
    write_peft(tmp_path / "peft", "chatglm2", num_virtual_tokens=5)
    save_file(
        {"prompt_embeddings": vectors["prompt_embeddings"]},
        tmp_path / "peft/adapter_model.safetensors",
    )
    model = load("glm4_9b", tmp_path / "peft")
    ids = vectors["ids"].astype(np.int32)
    slots = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    names = ("targets", "block_positions", "attend_start")
    batch = {"tokens": ids, "positions": slots, "attend_end": slots + 1}
    batch |= dict.fromkeys(names, 0 * ids)
    logits = np.asarray(model.logits({**batch, "loss_weights": np.ones(ids.shape, np.float32)}))
    np.testing.assert_allclose(logits, vectors["logits"], atol=1e-4, rtol=0)
    assert model.generate([ids[0].tolist()], 8, eos_ids=[]) == [vectors["continuation"].tolist()]
    model.save(tmp_path / "again", format="peft")
    written = load_file(tmp_path / "again/adapter_model.safetensors")["prompt_embeddings"]
    # Keys are turned there and back: by a rounding.
    np.testing.assert_allclose(written, vectors["prompt_embeddings"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("key", ["transformer.prefix_encoder.", "prefix_encoder.", ""])
def test_names_with_and_without_what_stands_before_them(key, tmp_path):
    tensors = encoder("chatglm2", "proj", key=key)
    model = load("chatglm2", write_ptuning(tmp_path / "prefix", "chatglm2", "proj", tensors))
    other = load("chatglm2", write_ptuning(tmp_path / "other", "chatglm2", "proj"))
    same(model.params, other.params)


def test_a_pickled_file_is_read_where_torch_is(tmp_path):
    torch = pytest.importorskip("torch")
    path = write_ptuning(tmp_path / "prefix", "chatglm2", "proj")
    expected = load("chatglm2", path)
    (path / "model.safetensors").unlink()
    tensors = {k: torch.from_numpy(v) for k, v in encoder("chatglm2", "proj").items()}
    torch.save(tensors, path / "pytorch_model.bin")
    same(load("chatglm2", path).params, expected.params)


def test_sixteen_bits_are_widened(tmp_path):
    tensors = {k: v.astype(np.float16) for k, v in encoder("chatglm1", "emb").items()}
    path = write_ptuning(tmp_path / "prefix", "chatglm1", "emb", tensors)
    model = load("chatglm1", path, dtype="bfloat16")
    assert model.params["prefix"]["table"].dtype == "float32"
    assert model.params["embedding"]["table"].dtype == "bfloat16"
    model.save(tmp_path / "again", format="ptuning")
    written = load_file(tmp_path / "again/model.safetensors")
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value.astype(np.float32))


def refused(message, name, path, *extra):
    with pytest.raises(UserError) as error:
        load(name, path)
    for part in (message, str(path), *extra):
        assert part in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_a_prefix_of_another_shape_names_both(tmp_path):
    path = write_ptuning(tmp_path / "prefix", "chatglm2", "emb")
    refused("[4, 128]", "chatglm1", path, "[4, 256]", "2 layers, 4 key heads of 16")
    path = write_ptuning(tmp_path / "longer", "chatglm2", "emb", pre_seq_len=7)
    refused("[4, 128]", "chatglm2", path, "a prefix of 7", "[7, 128]")
    path = write_ptuning(tmp_path / "wide", "chatglm2", "proj")
    refused("trans.2.weight", "chatglm1", path, "[128, 64]", "[256, 64]")
    path = write_peft(tmp_path / "peft", "chatglm3")
    refused("[3, 96]", "chatglm2", path, "[3, 128]")


def test_a_config_that_does_not_say_what_the_encoder_is(tmp_path):
    path = write_ptuning(tmp_path / "a", "chatglm2", "emb", pre_seq_len=None)
    refused("has no pre_seq_len", "chatglm2", path, "[4, 128]")
    path = write_ptuning(tmp_path / "b", "chatglm2", "proj", prefix_projection=False)
    refused("prefix_projection is False", "chatglm2", path, "has a projection")
    path = write_ptuning(tmp_path / "c", "chatglm2", "emb", prefix_projection=True)
    refused("prefix_projection is True", "chatglm2", path, "has no projection")
    path = write_ptuning(tmp_path / "d", "chatglm2", "emb", pre_seq_len="four")
    with pytest.raises(UserError, match=r"pre_seq_len in config.json must be a whole number"):
        load("chatglm2", path)


def test_tensors_that_are_missing_or_too_many(tmp_path):
    tensors = encoder("chatglm2", "proj")
    del tensors[f"{ENCODER}trans.2.bias"]
    path = write_ptuning(tmp_path / "fewer", "chatglm2", "proj", tensors)
    refused("lacks", "chatglm2", path, "trans.2.bias")
    tensors = {**encoder("chatglm2", "emb"), "transformer.output_layer.weight": np.zeros((2, 2))}
    tensors = {k: v.astype(np.float32) for k, v in tensors.items()}
    path = write_ptuning(tmp_path / "more", "chatglm2", "emb", tensors)
    refused("holds more than a prefix", "chatglm2", path, "transformer.output_layer.weight")
    path = write_ptuning(tmp_path / "none", "chatglm2", "emb", {"x": np.zeros(2, np.float32)})
    refused("holds no prefix: its tensors are x", "chatglm2", path)


def test_numbers_that_are_none(tmp_path):
    tensors = encoder("chatglm2", "proj")
    tensors[f"{ENCODER}trans.0.bias"][3] = np.nan
    path = write_ptuning(tmp_path / "prefix", "chatglm2", "proj", tensors)
    refused("NaN or infinite values", "chatglm2", path, "trans.0.bias")
    tensors = {k: np.zeros(v.shape, np.int32) for k, v in encoder("chatglm2", "emb").items()}
    path = write_ptuning(tmp_path / "whole", "chatglm2", "emb", tensors)
    refused("neither float32, float16 nor bfloat16", "chatglm2", path)


@pytest.mark.parametrize("kind", ["IA3", "P_TUNING", None])
def test_another_adapter_of_peft_is_named(kind, tmp_path):
    path = write_peft(tmp_path / "peft", "chatglm2", peft_type=kind)
    refused(
        f"PEFT adapter of type {kind!r}", "chatglm2", path, "only LORA and PREFIX_TUNING are read"
    )


def test_a_damaged_directory_of_peft(tmp_path):
    path = write_peft(tmp_path / "a", "chatglm2", num_virtual_tokens=None)
    with pytest.raises(UserError, match="num_virtual_tokens"):
        load("chatglm2", path)
    path = write_peft(tmp_path / "b", "chatglm2")
    (path / "adapter_model.safetensors").write_bytes(b"no tensors")
    refused("is damaged or incomplete", "chatglm2", path)
    (path / "adapter_model.safetensors").unlink()
    refused("holds no adapter_model.safetensors", "chatglm2", path)


def test_directories_that_are_no_adapter(tmp_path):
    refused("no directory", "chatglm2", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    refused(
        "holds no adapter", "chatglm2", tmp_path / "empty", "adapter_config.json", "pre_seq_len"
    )
    (tmp_path / "empty" / "run.json").write_text("{}")
    refused("no checkpoint in", "chatglm2", tmp_path / "empty")
    with pytest.raises(UserError, match="holds no prefix: its tensors are"):
        load("chatglm2", GOLDEN / "chatglm2")


def test_a_prefix_in_a_whole_model_that_its_config_does_not_know(tmp_path):
    model = load("chatglm2", write_ptuning(tmp_path / "prefix", "chatglm2", "emb"))
    model.save(tmp_path / "whole")
    file = tmp_path / "whole/config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "pre_seq_len": None}))
    with pytest.raises(UserError, match=r"hold a trained prefix .*: pre_seq_len is missing there"):
        glm_jax.load(tmp_path / "whole")
    tensors = load_file(tmp_path / "whole/model.safetensors")
    bare = {k: v for k, v in tensors.items() if not k.startswith(ENCODER)}
    file.write_text(json.dumps(values))
    save_file(bare, tmp_path / "whole/model.safetensors")
    with pytest.raises(UserError, match=r"has pre_seq_len, but its weights lack .* as adapter"):
        glm_jax.load(tmp_path / "whole")


def test_formats_without_a_place_for_a_prefix_say_so_and_write_nothing(tmp_path):
    model = load("chatglm2", write_ptuning(tmp_path / "prefix", "chatglm2", "emb"))
    with pytest.raises(UserError, match=r"has no prefix .*save it apart with format='ptuning'"):
        model.save(tmp_path / "native", names="native")
    assert not (tmp_path / "native").exists()
    bare = glm_jax.load(GOLDEN / "chatglm2")
    none = {"ptuning": "a model's prefix alone; this model has none", "peft": "has neither"}
    for format, message in none.items():
        with pytest.raises(UserError, match=message):
            bare.save(tmp_path / "bare", format=format)
    assert not (tmp_path / "bare").exists()
    with pytest.raises(UserError, match=r"format must be .*'ptuning' or 'peft'; got 'lora'"):
        bare.save(tmp_path / "bare", format="lora")


def test_a_prefix_does_not_take_the_place_of_something_else(tmp_path):
    model = load("chatglm2", write_ptuning(tmp_path / "prefix", "chatglm2", "emb"))
    whole = tmp_path / "whole"
    glm_jax.load(GOLDEN / "chatglm2").save(whole)
    before = {file.name: file.read_bytes() for file in whole.iterdir()}
    for format in ("ptuning", "peft"):
        with pytest.raises(UserError, match="whole"):
            model.save(whole, format=format)
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == before


def test_a_prefix_on_several_devices_is_the_same(tmp_path):
    path = write_ptuning(tmp_path / "prefix", "chatglm2", "proj")
    model = load("chatglm2", path)
    stacked = LanguageModel(model.config, jax.device_put(model.params), origin=model._origin)
    stacked.save(tmp_path / "again", format="ptuning")
    same(load("chatglm2", tmp_path / "again").params, model.params)
