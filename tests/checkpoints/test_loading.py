"""A model of any directory, read once for `glm_jax.load` and for `train.init_from`."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.checkpoints.loading import load_model, with_adapter
from glm_jax.checkpoints.params import save_params
from glm_jax.config import ModelConfig
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models import variants
from glm_jax.models.params import create_params
from glm_jax.models.trees import unstack_layers
from glm_jax.sharding.mesh import make_mesh
from tests.interop.prefix_directories import GOLDEN, encoder, write_ptuning
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES, RANKS, user


def test_the_parameters_of_a_run_and_their_dtype(tmp_path, config):
    params = create_params(config.model, make_mesh(config.mesh), seed=0)
    save_params(tmp_path / "run", config.model, params)
    found = load_model(tmp_path / "run")
    assert (found.config, found.tokenizer) == (config.resolved_model, None)
    assert found.origin.directory == tmp_path / "run"
    expected = unstack_layers(params)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(found.params), expected)
    half = load_model(tmp_path / "run", "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype(jax.numpy.bfloat16)}
    assert half.config.param_dtype == "bfloat16"


def test_the_bundled_model_has_its_tokenizer():
    found = load_model("bundled")
    assert found.tokenizer.vocab_size == found.config.vocab_size == 7168
    assert found.config.param_dtype == "bfloat16"
    assert found.origin.architecture is not None


def test_a_dtype_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"dtype must be one of .*; got 'int8'"):
        load_model(tmp_path, "int8")


def test_a_prefix_joins_a_model_and_stays_float32(tmp_path):
    path = write_ptuning(tmp_path / "prefix", "chatglm2", "emb")
    base = load_model(GOLDEN / "chatglm2", "bfloat16")
    found = with_adapter(base, path)
    assert found.config.prefix_length == 4
    assert found.config.compute == base.config.compute
    assert found.config.param_dtype == "bfloat16"
    table = found.params["prefix"]["table"]
    assert (table.dtype, table.shape) == ("float32", (2, 2, 4, 2, 16))
    (stored,) = encoder("chatglm2", "emb").values()
    np.testing.assert_array_equal(table[1, 0, 3], stored[3].reshape(2, 2, 2, 16)[1, 0])
    assert "prefix" not in base.params
    with pytest.raises(UserError, match=r"has a prefix of its own \(model.prefix_length=4\)"):
        with_adapter(found, path)


CHATGLM2 = ModelConfig(
    vocab_size=512,
    num_layers=1,
    embed_dim=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=32,
    max_positions=64,
    activation="swiglu",
    norm="rms_norm",
    biases="qkv",
    tied_embeddings=False,
    position_encoding="rotary",
)
CHATGLM_6B = dataclasses.replace(variants.CHATGLM_6B, **{
    **{"vocab_size": 640, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "num_kv_heads": 2},
    **{"head_dim": 8, "mlp_dim": 64, "max_positions": 64},
})  # fmt: skip


def model(path, config, names="original"):
    """A directory of Hugging Face with a small untrained model."""
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    glm_jax.LanguageModel(config, params).save(path, names=names)
    return path


def with_tokenizer(path, vocabulary, saved_as, kind=None):
    shutil.copyfile(vocabulary, path / saved_as)
    if kind is not None:
        (path / "glm_tokenizer.json").write_text(json.dumps({"kind": kind}))
    return path


@pytest.mark.parametrize(
    ("config", "names", "vocabulary", "saved_as", "kind"),
    [
        (CHATGLM2, "original", PIECES, "tokenizer.model", "chatglm2"),
        (CHATGLM2, "native", PIECES, "tokenizer.model", "chatglm3"),
        (CHATGLM2, "native", RANKS, "tokenizer.model", None),
        (CHATGLM_6B, "original", ICE_TEXT, "ice_text.model", None),
    ],
)
def test_a_chat_model_brings_its_tokenizer_along(
    tmp_path, config, names, vocabulary, saved_as, kind
):
    path = with_tokenizer(model(tmp_path / "a", config, names), vocabulary, saved_as, kind)
    template = {"chat_template": "{{ messages[0].content }}", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(template))
    lm = glm_jax.load(path)
    assert lm.tokenizer.kind == kind or kind is None
    assert lm.tokenizer.vocab_size < lm.config.vocab_size
    for format in ("huggingface", "orbax"):
        lm.save(tmp_path / format, format=format)
        again = glm_jax.load(tmp_path / format).tokenizer
        assert (again.kind, again.fingerprint) == (lm.tokenizer.kind, lm.tokenizer.fingerprint)
        assert again.apply_chat_template(user("hi"), tokenize=False) == "hi"
        assert again.special == lm.special


def test_special_ids_of_generation_are_the_tokenizers(tmp_path):
    path = with_tokenizer(model(tmp_path / "a", CHATGLM_6B), ICE_TEXT, "ice_text.model")
    lm = glm_jax.load(path)
    ids = lm.tokenizer.encode("hello[MASK]", allow_special=True)
    explicit = lm.fill_blanks(ids, mask_ids=[5, 6, 7], start_id=9, end_ids=[10], max_new_tokens=5)
    assert lm.fill_blanks(ids, max_new_tokens=5) == explicit
    prompt = lm.tokenizer.apply_chat_template(user("hello"))
    assert lm.generate([prompt], max_new_tokens=5) == lm.generate(
        [prompt], max_new_tokens=5, eos_ids=[10]
    )
    assert lm.fill("hello [MASK]", max_new_tokens=2).startswith("hello")


def test_the_kind_that_config_json_tells_is_kept(tmp_path):
    path = with_tokenizer(model(tmp_path / "a", CHATGLM2), PIECES, "tokenizer.model")
    values = json.loads((path / "config.json").read_text())
    values["_name_or_path"] = "THUDM/chatglm3-6b"
    (path / "config.json").write_text(json.dumps(values))
    lm = glm_jax.load(path)
    assert lm.tokenizer.kind == "chatglm3"
    lm.save(tmp_path / "b", names="native")
    lm.save(tmp_path / "c", format="orbax")
    for saved in ("b", "c"):
        assert glm_jax.load(tmp_path / saved).tokenizer.fingerprint == lm.tokenizer.fingerprint


def test_a_kind_that_nothing_tells_leaves_a_model_without_tokenizer(tmp_path, caplog):
    path = with_tokenizer(model(tmp_path / "a", CHATGLM2), PIECES, "tokenizer.model")
    assert glm_jax.load(path).tokenizer is None
    assert 'say kind="chatglm2" or kind="chatglm3"' in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("config", "vocabulary", "saved_as", "kind", "message"),
    [
        (
            *(dataclasses.replace(CHATGLM2, vocab_size=480), PIECES, "tokenizer.model"),
            *("chatglm3", r"'chatglm3'\) has 489 ids, and ChatGLM2.* has a vocabulary of 480"),
        ),
        (
            *(CHATGLM_6B, PIECES, "tokenizer.model", "chatglm2"),
            r"'chatglm2'\) is not one of ChatGLM-6B, which is of the kind chatglm$",
        ),
        (
            *(CHATGLM_6B, RANKS, "tokenizer.model", None),
            r"'glm4'\) is not one of ChatGLM-6B, which is of the kind chatglm$",
        ),
        (
            *(dataclasses.replace(CHATGLM2, vocab_size=640), ICE_TEXT, "ice_text.model", None),
            r"'chatglm'\) is not one of ChatGLM2/3 .* of the kind chatglm2 or chatglm3 or glm4",
        ),
    ],
)
def test_the_tokenizer_of_another_model_is_refused(
    tmp_path, config, vocabulary, saved_as, kind, message
):
    path = with_tokenizer(model(tmp_path / "a", config), vocabulary, saved_as, kind)
    with pytest.raises(UserError, match=message):
        glm_jax.load(path)
