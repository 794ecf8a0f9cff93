"""Quantised directories as ChatGLM is published: to the bit there and back, and bad ones."""

import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.adapters.quantised import quantised_in
from glm_jax.adapters.quantising import Quantize
from glm_jax.batch import Batch
from glm_jax.errors import UserError
from glm_jax.interop import packed as module
from glm_jax.interop.checkpoint import open_directory
from glm_jax.interop.packed import packed, quantise, read_bits, unpacked
from glm_jax.models.trees import to_paths

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"
MODELS = ("chatglm1", "chatglm2", "chatglm3")
UP = "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"


def write(directory, values, tensors):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(values))
    save_file(tensors, directory / "model.safetensors")
    return directory


def published(directory, model, bits, change=(), tensors=(), drop=()):
    """A directory as it is published: the golden tensors, and config.json with the bits."""
    values = {**json.loads((GOLDEN / model / "config.json").read_text()), "quantization_bit": bits}
    found = {**load_file(GOLDEN / model / f"model_int{bits}.safetensors"), **dict(tensors)}
    kept = {name: tensor for name, tensor in found.items() if name not in drop}
    return write(directory, {**values, **dict(change)}, kept)


def same_files(path, expected):
    ours, theirs = load_file(path / "model.safetensors"), load_file(expected / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


@pytest.fixture(scope="module", params=[(m, b) for m in MODELS for b in (8, 4)], ids=str)
def golden(request, tmp_path_factory):
    """(model, bits, its directory)"""
    directory = tmp_path_factory.mktemp("published")
    return *request.param, published(directory, *request.param)


@pytest.fixture
def vectors_batch(golden):
    """The rows of the golden vectors, and which slots are to be compared."""
    vectors = np.load(GOLDEN / golden[0] / "vectors.npz")
    tokens = vectors["input_ids"]
    none, length = np.zeros_like(tokens), tokens.shape[1]
    if golden[0] == "chatglm1":
        seen, real = ~vectors["attention_mask_blocked"][:, 0], vectors["valid"]
        positions, blocks = np.moveaxis(vectors["position_ids"], 1, 0)
    else:
        real = vectors["attention_mask"] > 0
        seen = np.tril(np.ones((length, length), bool)) & real[:, None, :] & real[:, :, None]
        positions, blocks = vectors["position_ids"], none
    start = np.where(seen.any(-1), seen.argmax(-1), 0)
    end = np.where(seen.any(-1), length - seen[..., ::-1].argmax(-1), 0)
    fields = [tokens, none, none, positions, blocks, start, end]
    dtypes = [np.float32 if index == 2 else np.int32 for index in range(7)]
    return Batch(*[f.astype(d) for f, d in zip(fields, dtypes, strict=True)]), real


def test_logits_of_a_published_directory(golden, vectors_batch):
    model, bits, directory = golden
    batch, real = vectors_batch
    lm = glm_jax.load(directory)
    assert len(list(quantised_in(lm.params))) == 2 * (6 if model == "chatglm1" else 7)
    dtype = np.int8 if bits == 8 else ml_dtypes.int4
    assert {leaf.values.dtype for leaf in quantised_in(lm.params)} == {np.dtype(dtype)}
    theirs = np.load(GOLDEN / model / "quant_logits.npz")[f"logits_int{bits}"]
    np.testing.assert_allclose(np.asarray(lm.logits(batch))[real], theirs[real], atol=1e-3, rtol=0)
    # The rounding itself is more than the tolerance.
    plain = np.load(GOLDEN / model / "vectors.npz")["logits"]
    assert np.abs(plain - theirs)[real].max() > 1e-2


def test_it_is_written_back_to_the_bit(golden, tmp_path):
    _, bits, directory = golden
    lm = glm_jax.load(directory)
    for names in ("as_loaded", "original"):
        lm.save(tmp_path / names, names=names)
        same_files(tmp_path / names, directory)
        values = json.loads((tmp_path / names / "config.json").read_text())
        assert values["quantization_bit"] == bits
        assert values["torch_dtype"] == "float16"
    wider = glm_jax.load(directory, dtype="float32")
    assert {leaf.scale.dtype for leaf in quantised_in(wider.params)} == {np.dtype(np.float16)}
    np.testing.assert_array_equal(
        wider.params["embedding"]["table"], lm.params["embedding"]["table"]
    )


def test_a_plain_model_is_quantised_to_the_same_integers(golden, tmp_path):
    model, bits, directory = golden
    lm = glm_jax.load(GOLDEN / model, quantize=f"int{bits}")
    lm.save(tmp_path / "own")
    ours, theirs = (load_file(p / "model.safetensors") for p in (tmp_path / "own", directory))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        is_packed = tensor.dtype == np.int8 or name.endswith("_scale")
        expected = tensor if is_packed else ours[name].astype(np.float16)
        np.testing.assert_array_equal(expected, tensor, err_msg=name)
        if is_packed:
            np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    again = glm_jax.load(tmp_path / "own")
    jax.tree.map(np.testing.assert_array_equal, again.params, lm.params)


@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("model", ["chatglm1", "chatglm2"])
def test_groups_and_tables_there_and_back(tmp_path, model, bits, group):
    """ChatGLM-6B-int4-qe has an embedding and an LM head of one tensor; groups are our own."""
    source = (tied_model if model == "chatglm1" else widened)(tmp_path / "source")
    how = Quantize(bits, group, search=True, embedding=True)
    lm = glm_jax.load(source, quantize=how)
    tied = model == "chatglm1"
    assert lm.params["embedding"]["table"].num_groups == (64 // group if group else 1)
    assert ("output" in lm.params) != tied
    lm.save(tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert values["quantization_bit"] == bits
    assert values.get("quantization_group_size") == group
    assert values["quantization_embeddings"] is True
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    head = "lm_head" if tied else "transformer.output_layer"
    assert tensors[f"{head}.weight"].shape == (320, 64 if bits == 8 else 32)
    assert tensors[f"{head}.weight_scale"].shape == ((320, 2) if group else (320,))
    again = glm_jax.load(tmp_path / "saved")
    assert again.config.tied_embeddings == tied
    jax.tree.map(np.testing.assert_array_equal, again.params, lm.params)
    lm.save(tmp_path / "orbax", format="orbax")
    jax.tree.map(np.testing.assert_array_equal, glm_jax.load(tmp_path / "orbax").params, lm.params)


def tied_model(directory):
    """chatglm1 with the token embedding as its LM head."""
    values = json.loads((GOLDEN / "chatglm1" / "config.json").read_text())
    tensors = load_file(GOLDEN / "chatglm1" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].copy()
    return write(directory, values, tensors)


def widened(directory):
    """chatglm2 with 128 features in its feed-forward part, which groups of 32 divide."""
    values = json.loads((GOLDEN / "chatglm2" / "config.json").read_text())
    tensors = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    rng = np.random.default_rng(0)
    for name in tensors:
        if "mlp.dense" in name:
            shape = (256, 64) if "h_to_4h" in name else (64, 128)
            tensors[name] = rng.normal(0, 0.1, shape).astype(np.float32)
    return write(directory, {**values, "ffn_hidden_size": 128}, tensors)


def test_it_decodes_as_its_dequantised_matrices_do(golden, tmp_path):
    model, _, directory = golden
    lm = glm_jax.load(directory, dtype="float32")
    lm.save(tmp_path / "plain", dequantize=True)
    values = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert not values.keys() & module.KEYS
    other = glm_jax.load(tmp_path / "plain")
    assert not any(quantised_in(other.params))
    prompts = [[5, 6, 7, 301, 304], [9, 301, 304]] if model == "chatglm1" else [[5, 6], [9, 10, 11]]
    assert lm.generate(prompts, 6, eos_ids=[]) == other.generate(prompts, 6, eos_ids=[])


def test_native_names_cannot_say_it(golden, tmp_path):
    model, bits, directory = golden
    lm = glm_jax.load(directory)
    if model == "chatglm1":  # has no native names at all
        return
    with pytest.raises(UserError, match=r"cannot say quantised weights, .*--dequantize"):
        lm.save(tmp_path / "native", names="native")
    assert not (tmp_path / "native").exists()
    lm.save(tmp_path / "native", names="native", dequantize=True)
    ours = to_paths(glm_jax.load(tmp_path / "native").params)
    for name, weight in to_paths(lm.params).items():
        plain = weight.used("float16") if name.endswith("/kernel") else weight
        np.testing.assert_array_equal(ours[name], plain)
    with pytest.raises(UserError, match=rf"is quantised already \(quantization_bit={bits} in"):
        glm_jax.load(directory, quantize="int8")
    again = glm_jax.load(tmp_path / "native", quantize="int4")
    with pytest.raises(UserError, match=r"GLM-4-9B .native names. cannot say quantised weights"):
        again.save(tmp_path / "packed")


def test_two_values_in_a_byte():
    np.testing.assert_array_equal(packed(np.array([[3, -2, -7, 7]], np.int8)), [[0x3E, -0x69]])
    vectors = np.load(GOLDEN / "chatglm2" / "quant_linear.npz")
    np.testing.assert_array_equal(unpacked(vectors["int4_packed"]), vectors["int4_unpacked"])
    np.testing.assert_array_equal(packed(vectors["int4_unpacked"]), vectors["int4_packed"])


def test_every_byte_and_every_pair_there_and_back():
    every = np.arange(-128, 128).astype(np.int8).reshape(8, 32)
    np.testing.assert_array_equal(packed(unpacked(every)), every)
    rng = np.random.default_rng(5)
    for _ in range(20):
        values = rng.integers(-8, 8, (rng.integers(1, 9), 2 * rng.integers(1, 20))).astype(np.int8)
        np.testing.assert_array_equal(unpacked(packed(values)), values)
        in_int4 = packed(values.astype(ml_dtypes.int4))
        np.testing.assert_array_equal(in_int4, packed(values))


def test_blocks_change_nothing(monkeypatch):
    tensor = np.random.default_rng(1).normal(size=(37, 64)).astype(ml_dtypes.bfloat16)
    how = Quantize(4, 16)
    whole = quantise("w", tensor, how)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1500)
    for ours, theirs in zip(quantise("w", tensor, how), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6], ids=str)
def test_what_has_no_scale_is_warned_of(tmp_path, caplog, value):
    """A weight that is not finite; or beyond float16, as which its scale is kept."""
    values = json.loads((GOLDEN / "chatglm2" / "config.json").read_text())
    tensors = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    tensors[UP][3, 4] = value
    write(tmp_path, values, tensors)
    lm = glm_jax.load(tmp_path, quantize="int4")
    assert f"NaN or infinite values in {tmp_path}: {UP}_scale" in caplog.text
    up = lm.params["layers"]["1"]["mlp"]["gate"]["kernel"]
    assert not np.isfinite(up.scale[0, 3])
    assert np.isfinite(np.delete(np.asarray(up.scale[0]), 3)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_bit": None}, r"_scale in .* is the scale of .* has no quantization_bit"),
        ({"quantization_bit": 0}, r"_scale in .* is the scale of .* has no quantization_bit"),
        ({"quantization_bit": 8}, r"=8 in config.json, but .* shape \(128, 32\) of 4 bits"),
        ({"quantization_bit": 3}, r"quantization_bit in config.json must be 8, 4 or 0; got 3"),
        ({"quantization_bit": "4"}, r"quantization_bit in config.json must be 8, 4 or 0; got '4'"),
        ({"quantization_bit": True}, r"must be 8, 4 or 0; got True"),
        ({"quantization_group_size": 48}, r"=48 in config.json does not divide the 64 inputs"),
        ({"quantization_group_size": 16}, r"_scale in .* has shape \(128,\); .* \(128, 4\)"),
        ({"quantization_group_size": "a"}, r"quantization_group_size in config.json must be a wh"),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 4}},
            r"quantised by 'awq' \(quantization_config in config.json\); what is read are float32",
        ),
        ({"quantization_config": {"bits": 4}}, r"quantised by {'bits': 4} \(quantization_config"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by 'gptq'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised by 'bitsandbytes'"),
    ],
)
def test_a_config_that_disagrees(tmp_path, change, message):
    directory = published(tmp_path, "chatglm2", 4, change)
    with pytest.raises(UserError, match=message) as caught:
        open_directory(directory)
    assert "\n" not in str(caught.value)


PACKED = np.zeros((224, 32), np.int8)


@pytest.mark.parametrize(
    ("tensors", "drop", "message"),
    [
        ({}, [f"{UP}_scale"], rf"{UP} in .* is quantised, int8, and has no scale .*{UP}_scale"),
        ({}, [UP], rf"{UP} is missing in .*; its scale is there"),
        ({f"{UP}_scale": np.zeros(224, np.int8)}, [], rf"{UP}_scale .* is quantised"),
        ({f"{UP}_scale": np.zeros(3, np.float16)}, [], rf"{UP}_scale .* shape \(3,\); .*\(224,\)"),
        ({UP: np.zeros((224, 32), np.float16)}, [], rf"{UP} in .* must be int8; got F16"),
        ({UP: np.zeros((220, 32), np.int8)}, [], rf"{UP} in .* has shape \(220, 32\); .*224, 32"),
        ({"x.weight_scale": np.zeros(3, np.float16)}, [], r"unknown x.weight_scale"),
        ({UP.replace("weight", "qweight"): PACKED}, [], r"quantised by AWQ or GPTQ \(.*qweight"),
        ({UP.replace("weight", "g_idx"): PACKED}, [], r"quantised by GPTQ \(.*g_idx\); what is"),
        ({UP.replace("weight", "SCB"): PACKED}, [], r"quantised by bitsandbytes \(.*SCB\)"),
        ({f"{UP}.absmax": PACKED}, [], r"quantised by bitsandbytes \(.*absmax\)"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, tensors, drop, message):
    directory = published(tmp_path, "chatglm2", 4, tensors=tensors, drop=drop)
    with pytest.raises(UserError, match=message) as caught:
        open_directory(directory)
    assert "\n" not in str(caught.value)


def test_bits_without_any_scale(tmp_path):
    values = {**json.loads((GOLDEN / "chatglm2" / "config.json").read_text())}
    tensors = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    write(tmp_path, {**values, "quantization_bit": 8}, tensors)
    with pytest.raises(UserError, match=r"says quantization_bit=8, but no weight there has a scal"):
        open_directory(tmp_path)
    assert read_bits(values) is None
    assert read_bits({"quantization_bit": 0, "quantization_config": None}) is None
    assert read_bits({"quantization_bit": 8}) == 8


def test_of_a_tied_head_both_are_quantised_or_neither(tmp_path):
    source, how = tied_model(tmp_path / "source"), Quantize(8, embedding=True)
    glm_jax.load(source, quantize=how).save(tmp_path / "both")
    values = json.loads((tmp_path / "both" / "config.json").read_text())
    tensors = load_file(tmp_path / "both" / "model.safetensors")
    assert glm_jax.load(tmp_path / "both").config.tied_embeddings
    tensors["lm_head.weight"] = load_file(source / "model.safetensors")["lm_head.weight"]
    del tensors["lm_head.weight_scale"]
    # Where config.json does not say that it is tied, a head of another kind is one of its own.
    write(tmp_path / "own", values, tensors)
    assert not glm_jax.load(tmp_path / "own").config.tied_embeddings
    write(tmp_path / "tied", {**values, "tie_word_embeddings": True}, tensors)
    with pytest.raises(UserError, match=r"LM head in .* lm_head.weight alone is plain"):
        glm_jax.load(tmp_path / "tied")


def test_what_is_quantised():
    for path, plainly, with_tables in (
        ("final_norm/scale", False, False),
        ("layers/0/mlp/up/bias", False, False),
        ("positions/table", False, False),
        ("embedding/table", False, True),
        ("output/table", False, True),
        ("layers/0/mlp/up/kernel", True, True),
    ):
        assert module.is_quantisable(path, Quantize()) == plainly
        assert module.is_quantisable(path, Quantize(embedding=True)) == with_tables
