import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.adapters.factors import factors_of
from glm_jax.checkpoints.conversion import check_apart, describe, look, rewrite
from glm_jax.config import MeshConfig
from glm_jax.convert import main
from glm_jax.errors import UserError
from glm_jax.models.trees import to_paths
from glm_jax.paths import expanded
from glm_jax.sharding.mesh import make_mesh
from tests.tuned_runs import config_of, save_base, tune

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"
MESH = make_mesh(MeshConfig(), jax.devices()[:1])


def same_tensors(path, expected):
    found = load_file(path)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        np.testing.assert_array_equal(found[key], tensor, err_msg=key)


def test_what_is_said_of_a_directory():
    source = look(GOLDEN / "chatglm2", "bfloat16", MESH)
    text = describe(source, Path("there"), "huggingface", "native")
    lines = dict(line.split(None, 1) for line in text.splitlines())
    assert lines["from"].endswith("chatglm2: ChatGLM2/3 and GLM-4-9B (original names)")
    assert lines["to"] == "there: huggingface, GLM-4-9B (native names)"
    assert "num_kv_heads=2" in lines["config"]
    assert "param_dtype='bfloat16'" in lines["config"]
    assert lines["parameters"] == "109,120"
    assert lines["bytes"] == "218,240"
    assert lines["files"] == "model.safetensors, config.json"


def test_dtypes_stay_each_as_it_is(tmp_path):
    tensors = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    mixed = {key: t if "norm" in key else t.astype(np.float16) for key, t in tensors.items()}
    save_file(mixed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((GOLDEN / "chatglm2" / "config.json").read_text())
    source = look(tmp_path, None, MESH)
    text = describe(source, Path("there"), "huggingface", "as_loaded")
    assert f"bytes        {2 * 109_120 + 2 * 5 * 64:,}" in text
    rewrite(source, tmp_path / "new")
    same_tensors(tmp_path / "new" / "model.safetensors", mixed)


@pytest.mark.parametrize(
    ("model", "names"), [("chatglm2", "native"), ("glm4_9b", "original"), ("glm4_0414", "native")]
)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_rewriting_is_loading_and_saving(tmp_path, model, names, dtype):
    rewrite(look(GOLDEN / model, dtype, MESH), tmp_path / "a", names)
    glm_jax.load(GOLDEN / model, dtype=dtype).save(tmp_path / "b", names=names)
    expected = load_file(tmp_path / "b" / "model.safetensors")
    same_tensors(tmp_path / "a" / "model.safetensors", expected)
    values = [json.loads((tmp_path / d / "config.json").read_text()) for d in ("a", "b")]
    assert values[0] == values[1]


def test_a_tied_matrix_that_is_none_is_found(tmp_path):
    values = json.loads((GOLDEN / "chatglm2" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": True}))
    tensors = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="tie_word_embeddings is true, but"):
        rewrite(look(tmp_path, None, MESH), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_this_project(tmp_path):
    lm = glm_jax.load(GOLDEN / "chatglm2")
    glm_jax.LanguageModel(lm.config, lm.params, glm_jax.load_tokenizer("bundled")).save(
        tmp_path / "a", format="orbax"
    )
    source = look(tmp_path / "a", None, MESH)
    assert source.checkpoint is None
    text = describe(source, Path("there"), "huggingface", "original")
    assert "from         " + str(tmp_path / "a") + ": trained by glm_jax" in text
    assert "files        model.safetensors, config.json, tokenizer.model" in text
    text = describe(source, Path("there"), "orbax", "as_loaded")
    assert "files        run.json, checkpoints/0/, tokenizer.model" in text
    with pytest.raises(ValueError, match="not a Hugging Face directory"):
        rewrite(source, tmp_path / "b")


@pytest.mark.parametrize(
    ("source", "destination", "refused"),
    [
        ("gs://b/a", "gs://b/a", True),
        ("gs://b/a/checkpoints/2", "gs://b/a", True),
        ("gs://b/a", "gs://b/ab", False),
        ("gs://b/a", "b/a", False),
        ("b/a", "gs://b/a", False),
    ],
)
def test_a_model_in_a_bucket_is_not_written_over_itself(source, destination, refused):
    if refused:
        with pytest.raises(UserError, match=rf"'{destination}' is or holds '{source}'"):
            check_apart(expanded(source), expanded(destination))
    else:
        check_apart(expanded(source), expanded(destination))


@pytest.mark.processes
def test_a_model_goes_into_a_bucket_and_back(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    rewrite(look(GOLDEN / "chatglm2", None, MESH), bucket / "model")
    rewrite(look(bucket / "model", None, MESH), tmp_path / "back")
    same_tensors(
        tmp_path / "back/model.safetensors", load_file(GOLDEN / "chatglm2/model.safetensors")
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(base, {kind: workdir}) of runs that trained a LoRA."""
    directory = tmp_path_factory.mktemp("tuned")
    base, workdirs = save_base(directory / "base"), {}
    for kind in ("lora", "int8"):
        workdirs[kind] = directory / kind
        config = config_of(kind, base, num_steps=1, eval_every=0, eval_batches=1)
        assert tune(config, workdirs[kind]) == 0
    return base, workdirs


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_trained_a_lora_is_folded_in(tuned, alone, tmp_path):
    base, workdirs = tuned
    command = [str(workdirs["lora"])] if alone else [str(base), "--adapter", str(workdirs["lora"])]
    assert main([command[0], str(tmp_path / "out"), *command[1:]]) == 0
    expected = glm_jax.load(base, adapter=workdirs["lora"]).merged()
    found = to_paths(glm_jax.load(tmp_path / "out").params)
    for path, leaf in to_paths(expected.params).items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-7, rtol=0, err_msg=path)


def test_a_run_over_integers_is_folded_in_on_request(tuned, tmp_path):
    workdir = tuned[1]["int8"]
    with pytest.raises(UserError, match=r"int8' is quantised, and a LoRA is folded .*--dequantize"):
        main([str(workdir), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert main([str(workdir), str(tmp_path / "out"), "--dequantize"]) == 0
    expected = glm_jax.load(workdir).merged(dequantize=True)
    found = to_paths(glm_jax.load(tmp_path / "out").params)
    for path, leaf in to_paths(expected.params).items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_what_a_run_trained_is_written_for_peft_and_read_again(tuned, tmp_path):
    base, workdirs = tuned
    model = glm_jax.load(base, adapter=workdirs["lora"])
    model.save(tmp_path / "peft", format="peft")
    again = glm_jax.load(base, adapter=tmp_path / "peft")
    ours, theirs = factors_of(again.params), factors_of(model.params)
    assert ours.keys() == theirs.keys()
    for path, one in ours.items():
        np.testing.assert_array_equal(one.a, theirs[path].a)
        np.testing.assert_array_equal(one.b, theirs[path].b)
        assert (one.scale, one.rate) == (theirs[path].scale, theirs[path].rate)
