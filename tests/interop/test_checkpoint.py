"""What is wrong with a directory is said in one sentence before any tensor is read."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.errors import UserError
from glm_jax.interop.checkpoint import open_directory

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"
MODELS = ["chatglm2", "chatglm3", "glm4_9b", "glm4_0414"]
DENSE = "transformer.encoder.layers.1.self_attention.dense.weight"


def write(directory, model="chatglm2", config=(), tensors=(), drop=()):
    """A copy of a golden model with other values, other tensors, and without some of either."""
    directory.mkdir(exist_ok=True)
    values = {**json.loads((GOLDEN / model / "config.json").read_text()), **dict(config)}
    found = {**load_file(GOLDEN / model / "model.safetensors"), **dict(tensors)}
    values = {key: value for key, value in values.items() if key not in drop}
    found = {key: tensor for key, tensor in found.items() if key not in drop}
    (directory / "config.json").write_text(json.dumps(values))
    save_file(found, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("chatglm2", "ChatGLM2/3 and GLM-4-9B (original names)"),
        ("chatglm3", "ChatGLM2/3 and GLM-4-9B (original names)"),
        ("glm4_9b", "GLM-4-9B (native names)"),
        ("glm4_0414", "GLM-4-0414"),
    ],
)
def test_a_directory_is_known(model, name):
    checkpoint = open_directory(GOLDEN / model)
    assert checkpoint.architecture.name == name
    assert checkpoint.config.param_dtype == "float32"
    assert len(checkpoint.rows) == len(checkpoint.tensors)
    assert checkpoint.origin.directory == GOLDEN / model


def test_nothing_is_known_by_its_type_alone(tmp_path):
    for model in MODELS:
        directory = write(tmp_path / model, model, drop=["model_type", "architectures"])
        expected = open_directory(GOLDEN / model)
        assert open_directory(directory).architecture is expected.architecture


def test_the_dtype_is_that_of_the_word_table(tmp_path):
    table = np.zeros((320, 64), ml_dtypes.bfloat16)
    key = "transformer.embedding.word_embeddings.weight"
    assert open_directory(write(tmp_path, tensors={key: table})).config.param_dtype == "bfloat16"


def test_buffers_of_frequencies_are_left_out(tmp_path):
    key = "transformer.rotary_pos_emb.inv_freq"
    checkpoint = open_directory(write(tmp_path, tensors={key: np.ones(4, np.float16)}))
    assert key not in [row.key for row in checkpoint.rows]


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path):
    with pytest.raises(UserError, match=rf"missing {DENSE}; unknown none"):
        open_directory(write(tmp_path, drop=[DENSE]))
    with pytest.raises(UserError, match=r"missing none; unknown a, b$"):
        open_directory(write(tmp_path, tensors={"a": np.zeros(1), "b": np.zeros(1)}))
    with pytest.raises(UserError, match=rf"{DENSE} .*shape \(64, 60\); .*asks for \(64, 64\)"):
        open_directory(write(tmp_path, tensors={DENSE: np.zeros((64, 60), np.float32)}))


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        ("chatglm2", {"num_layers": 3}, r"missing .*layers.2.* and 2 more; unknown none"),
        ("chatglm2", {"num_layers": 1}, r"missing none; unknown .*layers.1.* and 2 more"),
        ("chatglm2", {"ffn_hidden_size": 96}, r"dense_h_to_4h.weight .*\(224, 64\).*\(192, 64\)"),
        ("chatglm2", {"multi_query_group_num": 1}, r"query_key_value.weight .*\(96, 64\)"),
        ("chatglm2", {"add_qkv_bias": False}, r"unknown .*query_key_value.bias"),
        ("chatglm2", {"padded_vocab_size": 300}, r"word_embeddings.weight .*\(300, 64\)"),
        ("glm4_9b", {"model_type": "glm4"}, r"disagree: model_type is 'glm4', but .* GLM-4-9B"),
        ("glm4_0414", {"model_type": "glm"}, r"disagree: model_type is 'glm', but .* GLM-4-0414"),
        ("glm4_9b", {"attention_bias": False}, r"unknown .*k_proj.bias"),
    ],
)
def test_config_and_weights_that_disagree(tmp_path, model, config, message):
    with pytest.raises(UserError, match=message) as caught:
        open_directory(write(tmp_path, model, config))
    assert "\n" not in str(caught.value)


def test_integers_without_a_scale_and_other_dtypes_are_refused(tmp_path):
    for packed in (np.zeros((64, 64), np.int8), np.zeros((64, 32), np.int8)):
        with pytest.raises(UserError, match=rf"{DENSE} .*int8, and has no scale .*{DENSE}_scale"):
            open_directory(write(tmp_path, tensors={DENSE: packed}))
    odd = np.zeros((64, 64), np.float64)
    with pytest.raises(UserError, match=rf"{DENSE} .*must be float32, .*bfloat16; got F64"):
        open_directory(write(tmp_path, tensors={DENSE: odd}))


@pytest.mark.parametrize(
    ("model", "table", "output"),
    [
        (
            "chatglm2",
            "transformer.embedding.word_embeddings.weight",
            "transformer.output_layer.weight",
        ),
        ("glm4_9b", "model.embed_tokens.weight", "lm_head.weight"),
    ],
)
def test_tied_output_matrices(tmp_path, model, table, output):
    tied = {"tie_word_embeddings": True}
    lm = glm_jax.load(write(tmp_path / "without", model, tied, drop=[output]))
    assert lm.config.tied_embeddings
    assert "output" not in lm.params
    # The file may hold it all the same, where it is the same.
    words = load_file(GOLDEN / model / "model.safetensors")[table]
    directory = write(tmp_path / "equal", model, tied, {output: words.copy()})
    again = glm_jax.load(directory)
    np.testing.assert_array_equal(again.params["embedding"]["table"], words)
    with pytest.raises(UserError, match=rf"disagree: tie_word_embeddings .* {table} and {output}"):
        glm_jax.load(write(tmp_path / "other", model, tied))
    with pytest.raises(UserError, match=rf"missing {output}"):
        glm_jax.load(write(tmp_path / "untied", model, drop=[output]))


def test_a_missing_and_a_truncated_file(tmp_path):
    directory = write(tmp_path / "a")
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"model.safetensors is damaged or incomplete"):
        open_directory(directory)
    path.unlink()
    with pytest.raises(UserError, match="holds no weights"):
        open_directory(directory)
    (directory / "config.json").write_text("[]")
    with pytest.raises(UserError, match="must hold a JSON object; got list"):
        open_directory(directory)
    shutil.rmtree(directory)
    with pytest.raises(UserError, match=r"cannot read .*config.json"):
        open_directory(directory)


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path):
    with pytest.raises(UserError, match=r"asks for 18 layers; its weights are 17 tensors"):
        open_directory(write(tmp_path / "a", config={"num_layers": 18}))
    for number, (name, value) in enumerate(
        [
            ("num_layers", 10**9),
            ("padded_vocab_size", 10**12),
            ("hidden_size", 10**9),
            ("ffn_hidden_size", 10**9),
            ("kv_channels", 2**30),
            ("seq_length", 10**30),
            ("num_attention_heads", -4),
        ]
    ):
        with pytest.raises(UserError, match=r"must be|asks for") as caught:
            open_directory(write(tmp_path / str(number), config={name: value}))
        assert "\n" not in str(caught.value)


def test_what_is_nested_deep_and_what_has_two_values(tmp_path):
    directory = write(tmp_path / "a")
    values = (directory / "config.json").read_text()
    (directory / "config.json").write_text('{"a":' * 1000 + "1" + "}" * 1000)
    with pytest.raises(UserError, match=r"config.json: it is nested deeper than 100 levels"):
        open_directory(directory)
    (directory / "config.json").write_text(values.rstrip()[:-1] + ', "num_layers": 3}')
    with pytest.raises(UserError, match="'num_layers' has two values, 2 and others"):
        open_directory(directory)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("eos", ["2", True, 2.5, [2, "3"], -1])
def test_ends_that_are_no_ids(tmp_path, file, eos):
    directory = write(tmp_path / "a", config={"eos_token_id": 2})
    values = json.loads((directory / file).read_text()) if file == "config.json" else {}
    (directory / file).write_text(json.dumps({**values, "eos_token_id": eos}))
    with pytest.raises(UserError, match=rf"eos_token_id in .*{file} must be an id or a list of"):
        open_directory(directory)


def test_a_damaged_generation_config(tmp_path):
    directory = write(tmp_path / "a")
    for text in ("[", "[]", "3", "[" * 100_000):
        (directory / "generation_config.json").write_text(text)
        with pytest.raises(UserError, match=r"generation_config.json"):
            open_directory(directory)


def test_a_rope_ratio_that_is_guessed_at_is_said_once(tmp_path, caplog):
    directory = write(tmp_path / "a", config={"rope_ratio": 2})
    assert open_directory(directory).config.rotary_scaling == "base"
    open_directory(directory)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{directory}: rope_ratio=2 is read as a larger base")
    assert '"rope_mode": "linear"' in record.getMessage()


def test_names_of_tensors_break_no_line(tmp_path):
    with pytest.raises(UserError, match=r"unknown 'a\\n\\x1b\[31m'$"):
        open_directory(write(tmp_path, tensors={"a\n\x1b[31m": np.zeros(1)}))
