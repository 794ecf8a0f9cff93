"""Adapters beside one base: chosen by name, sharing its arrays; merged; written alone."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.config import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models.params import create_part
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import make_mesh
from tests.interop.lora_directories import (
    GOLDEN,
    base_of,
    logits,
    random_pairs,
    write_lora,
)
from tests.interop.prefix_directories import write_ptuning

BASE = GOLDEN / "chatglm" / "chatglm2"


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters")
    _, tensors = base_of("chatglm2")
    return {
        "law": write_lora(path / "law", random_pairs(tensors, ["query_key_value"])),
        "verse": write_lora(path / "verse", random_pairs(tensors, ["dense_h_to_4h"], 2, seed=1)),
        "prefix": write_ptuning(path / "prefix", "chatglm2", "emb"),
    }


@pytest.fixture(scope="module")
def lm(directories):
    return glm_jax.load(BASE, adapter=directories)


def test_each_adapter_is_what_it_is_alone(lm, directories):
    base = glm_jax.load(BASE)
    assert lm.adapters == ("law", "verse", "prefix")
    np.testing.assert_array_equal(logits(lm), logits(base))
    for name, directory in directories.items():
        alone = glm_jax.load(BASE, adapter=directory)
        model = lm.with_adapter(name)
        np.testing.assert_array_equal(logits(model), logits(alone))
        assert np.abs(logits(model) - logits(base)).max() > 0.1
        assert model.adapters == lm.adapters
        assert (model.tokenizer, alone.adapters) == (lm.tokenizer, ())
    other = lm.with_adapter("law").with_adapter("verse")
    np.testing.assert_array_equal(logits(other), logits(lm.with_adapter("verse")))
    np.testing.assert_array_equal(logits(other.with_adapter(None)), logits(base))


def test_the_arrays_of_the_base_are_there_once(lm):
    base = to_paths(lm.params)
    for name in lm.adapters:
        leaves = to_paths(lm.with_adapter(name).params)
        for path, leaf in base.items():
            assert getattr(leaves[path], "base", leaves[path]) is leaf, path


def test_texts_of_several_adapters_in_turn(lm, directories):
    prompt, texts = [[5, 6, 7, 8]], {}
    for name in (*lm.adapters, *lm.adapters):
        texts.setdefault(name, []).append(
            lm.with_adapter(name).generate(prompt, max_new_tokens=6, eos_ids=[])[0]
        )
    for name, (first, second) in texts.items():
        alone = glm_jax.load(BASE, adapter=directories[name])
        assert first == second == alone.generate(prompt, max_new_tokens=6, eos_ids=[])[0]
    assert len({tuple(first) for first, _ in texts.values()}) == 3


def test_a_stacked_base_is_taken_apart_once(directories, tmp_path):
    glm_jax.load(BASE).save(tmp_path / "run", format="orbax")
    lm = glm_jax.load(tmp_path / "run", adapter=directories)
    table = lm.params["layers"]["1"]["mlp"]["up"]["kernel"]
    assert lm.with_adapter("verse").params["layers"]["1"]["mlp"]["up"]["kernel"].base is table
    assert lm.with_adapter("law").params["layers"]["1"]["mlp"]["up"]["kernel"] is table


def test_names_that_are_none(lm):
    message = r"no adapter 'vers' \(did you mean 'verse'\?\); there are 'law', 'verse', 'prefix'"
    with pytest.raises(UserError, match=message):
        lm.with_adapter("vers")
    with pytest.raises(UserError, match=r"no adapter 'law'; load\(path, adapter={name: DIR}\)"):
        glm_jax.load(BASE).with_adapter("law")
    with pytest.raises(UserError, match="holds no adapter"):
        glm_jax.load(BASE, adapter={"law": GOLDEN})


def test_merged_it_is_a_plain_model(lm, tmp_path):
    model = lm.with_adapter("verse")
    merged = model.merged()
    np.testing.assert_allclose(logits(merged), logits(model), atol=1e-5, rtol=0)
    assert merged.adapters == ()
    table = "embedding/table"
    assert to_paths(merged.params)[table] is to_paths(model.params)[table]
    merged.save(tmp_path / "merged")
    model.save(tmp_path / "adapted")
    one, two = (to_paths(glm_jax.load(tmp_path / n).params) for n in ("merged", "adapted"))
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[path], err_msg=path)


def test_without_its_value_head_a_policy_is_a_published_model(lm, tmp_path):
    plain = glm_jax.load(BASE)
    head = create_part(
        dataclasses.replace(plain.config, value_head=True), make_mesh(MeshConfig()), 0, "value_head"
    )
    config = dataclasses.replace(plain.config, value_head=True)
    policy = glm_jax.LanguageModel(config, {**plain.params, "value_head": head})
    with pytest.raises(UserError, match=r"or save lm.without_value_head\(\)"):
        policy.save(tmp_path / "refused")
    policy.without_value_head().save(tmp_path / "saved")
    found = glm_jax.load(tmp_path / "saved")
    np.testing.assert_array_equal(logits(found), logits(plain))
    assert policy.config.value_head
    with pytest.raises(UserError, match=r"has no value head .* so none to leave out"):
        found.without_value_head()


def test_what_cannot_be_merged_says_why(lm):
    with pytest.raises(UserError, match=r"no LoRA to be merged; its prefix \(.*=4\) is no change"):
        lm.with_adapter("prefix").merged()
    with pytest.raises(UserError, match=r"this model has no LoRA to be merged$"):
        lm.merged()


def test_over_integers_it_is_merged_on_request(directories):
    model = glm_jax.load(BASE, quantize="int8", adapter=directories["law"])
    with pytest.raises(UserError, match="this model's are quantised"):
        model.merged()
    plain = model.merged(dequantize=True)
    np.testing.assert_allclose(logits(plain), logits(model), atol=1e-3, rtol=0)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(plain.params)} == {"float32"}


def test_names_of_an_adapter_that_is_written_alone(lm, tmp_path):
    for format in ("peft", "ptuning"):
        with pytest.raises(UserError, match="a prefix has the names of its format"):
            lm.with_adapter("prefix").save(tmp_path / "out", format=format, names="original")
    with pytest.raises(UserError, match="writes a LoRA or a prefix alone; this model has neither"):
        lm.save(tmp_path / "out", format="peft")
    assert not (tmp_path / "out").exists()
    lm.with_adapter("law").save(tmp_path / "out", format="peft", names="native")
    again = glm_jax.load(BASE, adapter=tmp_path / "out")
    np.testing.assert_array_equal(logits(again), logits(lm.with_adapter("law")))


def test_a_model_is_freed_when_its_last_name_is(directories):
    for adapter in (directories["law"], directories):
        model = glm_jax.load(BASE, adapter=adapter)
        gc.collect()
        gc.disable()
        try:
            seen = weakref.ref(model)
            del model
            assert seen() is None
        finally:
            gc.enable()


def test_a_lora_that_was_written_here_knows_its_base(lm, tmp_path):
    """Whatever names and width the base has then; PEFT's own directories have no such file."""
    lm.with_adapter("law").save(tmp_path / "law", format="peft")
    glm_jax.load(BASE).save(tmp_path / "native", names="native")
    for path, options in ((tmp_path / "native", {}), (BASE, {"quantize": "int4"})):
        model = glm_jax.load(path, adapter=tmp_path / "law", **options)
        assert model.params["layers"]["0"]["attention"]["query"]["kernel"].rank == 3
    other = glm_jax.load(BASE)
    norm = other.params["layers"]["1"]["mlp_norm"]
    norm["scale"] = norm["scale"].at[3].add(0.01)
    other.save(tmp_path / "tuned")
    with pytest.raises(UserError, match=r"trained over 'chatglm2', with the fingerprint") as error:
        glm_jax.load(tmp_path / "tuned", adapter=tmp_path / "law")
    assert "layers/mlp_norm/scale" in str(error.value)
    (tmp_path / "law" / "base.json").unlink()
    glm_jax.load(tmp_path / "tuned", adapter=tmp_path / "law")
