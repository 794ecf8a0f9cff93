"""LoRA directories: what is read computes what PEFT computes, and is written back as it was."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.adapters.low_rank import LowRank
from glm_jax.errors import UserError
from glm_jax.models.trees import to_paths
from glm_jax.models.weights import is_weight
from tests.interop.lora_directories import (
    BASES,
    GOLDEN,
    IDS,
    PEFT,
    added,
    base_of,
    logits,
    random_pairs,
    read_pairs,
    write_lora,
    write_model,
)

CHATGLM = GOLDEN / "chatglm"


def factors(model):
    """Path -> LowRank."""
    leaves = to_paths(model.params)
    return {path: leaf for path, leaf in leaves.items() if isinstance(leaf, LowRank)}


def same_factors(one, other):
    ours, theirs = factors(one), factors(other)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf.a, theirs[path].a, err_msg=path)
        np.testing.assert_array_equal(leaf.b, theirs[path].b, err_msg=path)
        assert leaf.scale == pytest.approx(theirs[path].scale, rel=1e-12), path


def same_files(directory, other):
    """The tensors to the bit; and what the two configs say of each."""
    (config, ours), (wanted, theirs) = read_pairs(directory), read_pairs(other)
    assert ours.keys() == theirs.keys()
    for name, pair in ours.items():
        for one, two in zip(pair, theirs[name], strict=True):
            np.testing.assert_array_equal(one, two, err_msg=name)
    for key in ("r", "lora_alpha", "target_modules", "peft_type", "lora_dropout", "use_rslora"):
        defaults = {"lora_dropout": 0.0, "use_rslora": False}
        assert config[key] == wanted.get(key, defaults.get(key)), key


@pytest.fixture(params=BASES)
def base(request, tmp_path):
    """(name, directory, tensors, config)."""
    config, tensors = base_of(request.param)
    return request.param, write_model(tmp_path / "base", config, tensors), tensors, config


def test_every_matrix_under_its_published_names(base, tmp_path):
    name, directory, tensors, config = base
    pairs = random_pairs(tensors, BASES[name])
    adapter = write_lora(tmp_path / "lora", pairs)
    model = glm_jax.load(directory, adapter=adapter)
    plain = glm_jax.load(write_model(tmp_path / "added", config, added(tensors, pairs)))
    expected = logits(plain)
    assert np.abs(expected - logits(glm_jax.load(directory))).max() > 0.1
    np.testing.assert_allclose(logits(model), expected, atol=1e-4, rtol=0)
    # Folded in, parameters are those of the sum.
    merged = to_paths(model.merged().params)
    for path, leaf in to_paths(plain.params).items():
        np.testing.assert_allclose(merged[path], leaf, atol=2e-6, rtol=0, err_msg=path)
    model.save(tmp_path / "again", format="peft")
    same_files(tmp_path / "again", adapter)
    # In the place of what lies there.
    model.save(tmp_path / "again", format="peft")


@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_one_fused_matrix_shares_its_a_and_splits_its_b(name, tmp_path):
    _, tensors = base_of(name)
    pairs = random_pairs(tensors, ["query_key_value"])
    model = glm_jax.load(CHATGLM / name, adapter=write_lora(tmp_path / "lora", pairs))
    found = factors(model)
    assert found.keys() == {
        f"layers/{i}/attention/{part}/kernel" for i in (0, 1) for part in ("query", "key", "value")
    }
    (module,) = (one for one in pairs if ".1." in one)
    a, b = pairs[module]
    parts = [found[f"layers/1/attention/{part}/kernel"] for part in ("query", "key", "value")]
    assert parts[0].a is parts[1].a is parts[2].a
    np.testing.assert_array_equal(parts[0].a, a.T)
    # Rows by hand: ChatGLM-6B has q, k, v of a head together, ChatGLM2 all heads of q first.
    head, size = 1, 16
    rows = b[head * 3 * size :][: 3 * size] if name == "chatglm1" else b[head * size :][:size]
    # Half a head of ChatGLM-6B: 0 4 1 5 2 6 3 7.
    order = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    order = order if name == "chatglm1" else range(size)
    np.testing.assert_array_equal(parts[0].b[:, head], rows[list(order)].T)
    if name == "chatglm1":
        np.testing.assert_array_equal(parts[1].b[:, head], rows[size : 2 * size][order].T)
        np.testing.assert_array_equal(parts[2].b[:, head], rows[2 * size :].T)
    else:
        np.testing.assert_array_equal(parts[2].b[:, head], b[6 * size + head * size :][:size].T)


@pytest.mark.parametrize("targets", [["q_proj", "k_proj", "v_proj"], ["q_proj", "v_proj"]])
def test_parts_with_an_a_of_their_own_are_written_fused_and_come_back(targets, tmp_path):
    _, tensors = base_of("glm4_9b")
    pairs = random_pairs(tensors, targets)
    adapter = write_lora(tmp_path / "lora", pairs, rank_pattern={"v_proj": 3})
    model = glm_jax.load(CHATGLM / "glm4_9b", adapter=adapter)
    model.save(tmp_path / "fused", format="peft", names="original")
    config, fused = read_pairs(tmp_path / "fused")
    ranks = 3 * len(targets)
    assert (config["r"], config["lora_alpha"]) == (ranks, 2 * ranks)
    assert config["target_modules"] == ["query_key_value"]
    a, b = fused["transformer.encoder.layers.1.self_attention.query_key_value"]
    assert (a.shape, b.shape) == ((ranks, 64), (64 + 2 * 32, ranks))
    parts = {"q_proj": b[:64] @ a, "k_proj": b[64:96] @ a, "v_proj": b[96:] @ a}
    for part, product in parts.items():
        theirs = pairs.get(f"model.layers.1.self_attn.{part}")
        expected = np.zeros_like(product) if theirs is None else theirs[1] @ theirs[0]
        np.testing.assert_allclose(product, expected, atol=1e-6, rtol=0, err_msg=part)
    again = glm_jax.load(CHATGLM / "glm4_9b", adapter=tmp_path / "fused")
    same_factors(again, model)
    again.save(tmp_path / "native", format="peft")
    same_files(tmp_path / "native", adapter)


def test_parts_with_scales_of_their_own_are_written_fused(tmp_path):
    _, tensors = base_of("glm4_9b")
    pairs = random_pairs(tensors, ["q_proj", "k_proj", "v_proj"])
    adapter = write_lora(tmp_path / "lora", pairs, alpha_pattern={"k_proj": 12})
    model = glm_jax.load(CHATGLM / "glm4_9b", adapter=adapter)
    model.save(tmp_path / "fused", format="peft", names="original")
    config, fused = read_pairs(tmp_path / "fused")
    assert (config["r"], config["lora_alpha"], config["alpha_pattern"]) == (9, 18, {})
    a, b = fused["transformer.encoder.layers.0.self_attention.query_key_value"]
    k_a, k_b = pairs["model.layers.0.self_attn.k_proj"]
    np.testing.assert_allclose(2 * b[64:96] @ a, 4 * k_b @ k_a, atol=1e-5, rtol=0)
    again = glm_jax.load(CHATGLM / "glm4_9b", adapter=tmp_path / "fused")
    np.testing.assert_allclose(logits(again), logits(model), atol=1e-5, rtol=0)


def test_a_fused_matrix_is_written_as_its_parts(tmp_path):
    """An adapter of ChatGLM's own names beside the same model in transformers', and back."""
    _, tensors = base_of("chatglm2")
    pairs = random_pairs(tensors, BASES["chatglm2"])
    adapter = write_lora(tmp_path / "lora", pairs)
    model = glm_jax.load(CHATGLM / "chatglm2", adapter=adapter)
    model.save(tmp_path / "native", format="peft", names="native")
    config, native = read_pairs(tmp_path / "native")
    assert config["target_modules"] == sorted(set(BASES["glm4_9b"]))
    a, b = pairs["transformer.encoder.layers.0.self_attention.query_key_value"]
    for part, rows in (("q", b[:64]), ("k", b[64:96]), ("v", b[96:])):
        theirs = native[f"model.layers.0.self_attn.{part}_proj"]
        np.testing.assert_array_equal(theirs[0], a)
        np.testing.assert_array_equal(theirs[1], rows)
    glm_jax.load(CHATGLM / "chatglm2").save(tmp_path / "base", names="native")
    there = glm_jax.load(tmp_path / "base", adapter=tmp_path / "native")
    np.testing.assert_allclose(logits(there), logits(model), atol=1e-5, rtol=0)
    # Names of the other scheme are read beside either.
    same_factors(glm_jax.load(tmp_path / "base", adapter=adapter), model)
    there.save(tmp_path / "back", format="peft", names="original")
    same_files(tmp_path / "back", adapter)


@pytest.mark.parametrize("name", sorted(path.name for path in PEFT.iterdir() if path.is_dir()))
def test_what_peft_trained(name, tmp_path):
    """PEFT 0.21.2 around transformers 5.23.0: its directories, and its logits with them."""
    vectors = np.load(PEFT / name / "logits.npz")
    base = CHATGLM / ("glm4_9b" if name.startswith("glm4_9b") else "glm4_0414")
    model = glm_jax.load(base, adapter=PEFT / name)
    ours = logits(model, vectors["ids"])
    np.testing.assert_allclose(ours[..., ::4], vectors["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits(model.merged(), vectors["ids"]), ours, atol=1e-5, rtol=0)
    model.save(tmp_path / "again", format="peft")
    again = glm_jax.load(base, adapter=tmp_path / "again")
    same_factors(again, model)
    theirs = load_file(PEFT / name / "adapter_model.safetensors")
    written = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert written.keys() == theirs.keys()
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(written[key], tensor, err_msg=key)


@pytest.mark.parametrize("bits", [8, 4])
def test_over_quantised_matrices(bits, tmp_path):
    config, tensors = base_of("chatglm2")
    packed = load_file(CHATGLM / "chatglm2" / f"model_int{bits}.safetensors")
    base = write_model(tmp_path / "base", {**config, "quantization_bit": bits}, packed)
    glm_jax.load(base, "float32").save(tmp_path / "plain", dequantize=True)
    adapter = write_lora(tmp_path / "lora", random_pairs(tensors, BASES["chatglm2"]))
    model = glm_jax.load(base, "float32", adapter=adapter)
    plain = glm_jax.load(tmp_path / "plain", adapter=adapter)
    kernel = model.params["layers"]["0"]["mlp"]["up"]["kernel"]
    assert kernel.base.bits == bits
    np.testing.assert_allclose(logits(model), logits(plain), atol=1e-4, rtol=0)
    model.save(tmp_path / "again", format="peft")
    same_files(tmp_path / "again", adapter)
    with pytest.raises(UserError, match=r"are quantised: make them plain with dequantize=True"):
        model.save(tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    model.save(tmp_path / "whole", dequantize=True)
    whole = glm_jax.load(tmp_path / "whole")
    np.testing.assert_allclose(logits(whole), logits(model), atol=1e-4, rtol=0)


def test_sixteen_bits_are_widened_and_the_base_keeps_its_own(tmp_path):
    _, tensors = base_of("chatglm1")
    pairs = random_pairs(tensors, ["dense"])
    half = {key: tuple(one.astype(np.float16) for one in pair) for key, pair in pairs.items()}
    adapter = write_lora(tmp_path / "lora", half)
    model = glm_jax.load(CHATGLM / "chatglm1", adapter=adapter, dtype="bfloat16")
    for path, leaf in factors(model).items():
        assert path.endswith("attention/out/kernel")
        assert (leaf.a.dtype, leaf.b.dtype, leaf.base.dtype) == ("float32", "float32", "bfloat16")
    assert model.merged().params["layers"]["0"]["attention"]["out"]["kernel"].dtype == "bfloat16"


def test_an_untrained_adapter_keeps_its_ranks(tmp_path):
    _, tensors = base_of("chatglm2")
    pairs = random_pairs(tensors, ["query_key_value"])
    pairs = {name: (a, 0 * b) for name, (a, b) in pairs.items()}
    model = glm_jax.load(CHATGLM / "chatglm2", adapter=write_lora(tmp_path / "lora", pairs))
    assert {leaf.rank for leaf in factors(model).values()} == {3}
    np.testing.assert_array_equal(logits(model), logits(glm_jax.load(CHATGLM / "chatglm2")))


def test_names_behind_what_stands_before_them(tmp_path):
    """GLM (2021) inside of a class of Hugging Face: glm.transformer.layers.."""
    config, tensors = base_of("glm")
    base = write_model(
        tmp_path / "base", config, {f"glm.{key}": tensor for key, tensor in tensors.items()}
    )
    pairs = random_pairs(tensors, ["query_key_value"])
    longer = write_lora(tmp_path / "a", {f"glm.{key}": pair for key, pair in pairs.items()})
    shorter = write_lora(tmp_path / "b", pairs)
    model = glm_jax.load(base, adapter=longer)
    same_factors(glm_jax.load(base, adapter=shorter), model)
    model.save(tmp_path / "again", format="peft")
    same_files(tmp_path / "again", longer)


def test_a_model_that_was_trained_here_has_published_names_too(tmp_path):
    _, tensors = base_of("chatglm2")
    glm_jax.load(CHATGLM / "chatglm2").save(tmp_path / "run", format="orbax")
    for name in ("chatglm2", "glm4_9b"):
        targets = BASES[name][:1]
        own = tensors if name == "chatglm2" else base_of("glm4_9b")[1]
        adapter = write_lora(tmp_path / name, random_pairs(own, targets))
        model = glm_jax.load(tmp_path / "run", adapter=adapter)
        there = glm_jax.load(CHATGLM / "chatglm2", adapter=adapter)
        same_factors(model, there)
        model.save(tmp_path / f"{name}-again", format="peft")
        same_factors(glm_jax.load(tmp_path / "run", adapter=tmp_path / f"{name}-again"), model)


def test_what_is_written_says_where_it_came_from(tmp_path):
    _, tensors = base_of("chatglm2")
    pairs = random_pairs(tensors, ["dense"])
    adapter = write_lora(tmp_path / "lora", pairs, lora_dropout=0.25)
    model = glm_jax.load(CHATGLM / "chatglm2", adapter=adapter)
    model.save(tmp_path / "again", format="peft")
    config, _ = read_pairs(tmp_path / "again")
    assert config["base_model_name_or_path"] == "chatglm2"
    assert config["task_type"] == "CAUSAL_LM"
    assert config["lora_dropout"] == 0.25


GLM4 = random_pairs(base_of("glm4_9b")[1], ["q_proj", "down_proj"])
DOWN = "model.layers.0.mlp.down_proj"


def refused(path, *parts, base="glm4_9b"):
    with pytest.raises(UserError) as error:
        glm_jax.load(CHATGLM / base, adapter=path)
    for part in (str(path), *parts):
        assert part in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_that_the_model_has_not_names_the_nearest(tmp_path):
    pairs = {name.replace("q_proj", "query_proj"): pair for name, pair in GLM4.items()}
    path = write_lora(tmp_path / "a", pairs)
    refused(path, "is for another model: this one has no model.layers.0.self_attn.query_proj")
    refused(path, "did you mean 'model.layers.0.self_attn.q_proj'?")
    _, tensors = base_of("chatglm2")
    path = write_lora(tmp_path / "b", random_pairs(tensors, ["query_key_value"]))
    refused(path, "this one has no", "query_key_value", base="glm4_0414")


def test_a_model_of_another_number_of_layers(tmp_path):
    pairs = {name.replace(".1.", ".7."): pair for name, pair in GLM4.items()}
    refused(write_lora(tmp_path / "a", pairs), "layers.7.", "this model has 2 layers")
    pairs = {name: pair for name, pair in GLM4.items() if ".0." in name}
    path = write_lora(tmp_path / "b", pairs)
    refused(path, "lacks model.layers.1.mlp.down_proj", "it has layers 0 to 0, this model 2")


def test_shapes_that_do_not_fit_name_both(tmp_path):
    a, b = GLM4[DOWN]
    path = write_lora(tmp_path / "a", {**GLM4, DOWN: (a[:, :100], b)})
    refused(path, f"{DOWN}.lora_A.weight", "is [3, 100]", "matrix [64, 112] it is [3, 112]")
    path = write_lora(tmp_path / "b", {**GLM4, DOWN: (a, b[:60])})
    refused(path, f"{DOWN}.lora_B.weight", "is [60, 3]", "matrix [64, 112] it is [64, 3]")
    path = write_lora(tmp_path / "c", {**GLM4, DOWN: (a[:2], b)}, r=3)
    refused(path, "is [2, 112], of rank 2; its adapter_config.json says 3")
    path = write_lora(tmp_path / "d", {**GLM4, DOWN: (a[0], b)})
    refused(path, "is [112]")
    refused(write_lora(tmp_path / "e", GLM4, r=8), "of rank 3; its adapter_config.json says 8")
    refused(
        write_lora(tmp_path / "f", GLM4, rank_pattern={"q_proj": 4}), "of rank 3; its", "says 4"
    )


def drop(path, key):
    tensors = load_file(path / "adapter_model.safetensors")
    assert tensors.pop(f"base_model.model.{key}") is not None
    save_file(tensors, path / "adapter_model.safetensors")
    return path


def test_tensors_that_are_missing_or_too_many(tmp_path):
    path = drop(write_lora(tmp_path / "a", GLM4), f"{DOWN}.lora_B.weight")
    refused(path, f"lacks {DOWN}.lora_B.weight")
    path = write_lora(tmp_path / "b", GLM4)
    tensors = load_file(path / "adapter_model.safetensors")
    for key, message in {
        "base_model.model.lm_head.weight": "holds more than a LoRA of matrices: base_model",
        f"base_model.model.{DOWN}.lora_B.bias": "holds more than a LoRA of matrices",
        "base_model.model.model.embed_tokens.lora_embedding_A": "has a LoRA of a table, base_model",
    }.items():
        save_file({**tensors, key: np.zeros(2, "f4")}, path / "adapter_model.safetensors")
        refused(path, message, key)
    save_file({}, path / "adapter_model.safetensors")
    refused(path, "lacks any lora_A.weight")
    (path / "adapter_model.safetensors").write_bytes(b"no tensors")
    refused(path, "is damaged or incomplete")
    (path / "adapter_model.safetensors").unlink()
    refused(path, "holds no adapter_model.safetensors")


def test_config_and_tensors_that_disagree(tmp_path):
    refused(write_lora(tmp_path / "a", GLM4, target_modules=["q_proj"]), "holds", DOWN, "not name")
    path = write_lora(tmp_path / "b", GLM4, target_modules=["q_proj", "down_proj", "o_proj"])
    refused(path, "lacks model.layers.0.self_attn.o_proj")


@pytest.mark.parametrize("table", ["lm_head", "model.embed_tokens"])
def test_a_table_is_refused_by_name(table, tmp_path):
    pair = np.zeros((3, 64), "f4"), np.zeros((320, 3), "f4")
    path = write_lora(tmp_path / "a", {**GLM4, table: pair})
    refused(path, f"has a LoRA of {table}: only those of the layers' matrices are read")
    names = ["q_proj", "down_proj", table.rpartition(".")[2]]
    refused(write_lora(tmp_path / "b", GLM4, target_modules=names), f"has a LoRA of {table}")


def test_numbers_that_are_none(tmp_path):
    a, b = GLM4[DOWN]
    a = a.copy()
    a[1, 2] = np.inf
    path = write_lora(tmp_path / "a", {**GLM4, DOWN: (a, b)})
    refused(path, f"NaN or infinite values in {DOWN}.lora_A.weight")
    path = write_lora(tmp_path / "b", {**GLM4, DOWN: (b.T.astype(np.int32), b)})
    path = write_lora(tmp_path / "c", {**GLM4, DOWN: (np.ones((3, 112), np.int32), b)})
    refused(path, f"{DOWN}.lora_A.weight", "must be float32, float16 or bfloat16; got I32")


def test_a_target_that_nothing_has_is_passed_over_with_a_warning(tmp_path, caplog):
    """As PEFT does: tools write all names that any model has."""
    names = ["q_proj", "down_proj", "gate_proj"]
    glm_jax.load(
        CHATGLM / "glm4_9b", adapter=write_lora(tmp_path / "a", GLM4, target_modules=names)
    )
    assert "no 'gate_proj' (did you mean" in caplog.text


def test_it_does_not_take_the_place_of_something_else(tmp_path):
    model = glm_jax.load(CHATGLM / "glm4_9b", adapter=write_lora(tmp_path / "lora", GLM4))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        model.save(tmp_path / "there", format="peft")
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"names must be .*; got 'theirs'"):
        model.save(tmp_path / "new", format="peft", names="theirs")
    other = glm_jax.load(CHATGLM / "glm4_0414", adapter=PEFT / "glm4_0414_last_layer")
    with pytest.raises(UserError, match="GLM-4-0414 has no original names"):
        other.save(tmp_path / "new", format="peft", names="original")
    assert not (tmp_path / "new").exists()


def test_no_weights_are_left_in_the_saved_model(tmp_path):
    model = glm_jax.load(CHATGLM / "glm4_9b", adapter=write_lora(tmp_path / "lora", GLM4))
    for format in ("huggingface", "orbax"):
        model.save(tmp_path / format, format=format)
        again = glm_jax.load(tmp_path / format)
        assert not any(map(is_weight, to_paths(again.params).values()))
        np.testing.assert_allclose(logits(again), logits(model), atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "huggingface/config.json").read_text())["model_type"] == "glm"
    assert IDS.shape == (2, 9)
