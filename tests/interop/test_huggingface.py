import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.convert import main
from glm_jax.errors import UserError
from glm_jax.generation.language_model import LanguageModel
from glm_jax.interop import huggingface
from glm_jax.interop.huggingface import save_directory
from glm_jax.interop.save_plan import SaveAs
from glm_jax.models.trees import stack_layers, to_paths
from glm_jax.tokenizers.byte_pairs import byte_characters
from glm_jax.tokenizers.tokenizer import tokenizer_file

CHATGLM = Path(__file__).parents[1] / "golden" / "chatglm"
GENERATION = Path(__file__).parents[1] / "golden" / "glm" / "generation"
CONFIG = json.loads((GENERATION / "cases.json").read_text())["config"]
TENSORS = load_file(GENERATION / "state_dict.safetensors")
DENSE = "transformer.layers.1.attention.dense.weight"


def write(directory, config=CONFIG, tensors=TENSORS, **extra):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**config, **extra}))
    save_file(tensors, directory / "model.safetensors")
    return directory


def same_tensors(path, tensors):
    ours = load_file(path)
    assert ours.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert ours[key].dtype == tensor.dtype
        np.testing.assert_array_equal(ours[key], tensor, err_msg=key)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=str)
def test_loaded_saved_and_loaded_again_is_the_same_to_the_bit(tmp_path, dtype):
    tensors = {key: tensor.astype(dtype) for key, tensor in TENSORS.items()}
    lm = glm_jax.load(write(tmp_path / "a", tensors=tensors))
    assert lm.config.param_dtype == np.dtype(dtype).name
    assert lm.config.compute.dtype == "float32"
    lm.save(tmp_path / "b")
    same_tensors(tmp_path / "b" / "model.safetensors", tensors)
    again = glm_jax.load(tmp_path / "b")
    assert again.config == lm.config
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_the_config_is_read_from_its_published_keys(tmp_path):
    lm = glm_jax.load(write(tmp_path / "a", attention_scale=16.0, output_dropout_prob=0.2))
    config = lm.config
    assert (config.num_layers, config.embed_dim, config.num_heads) == (2, 64, 4)
    assert (config.vocab_size, config.max_positions) == (128, 64)
    assert (config.position_encoding, config.dropout_rate) == ("learned_block", 0.2)
    lm.save(tmp_path / "b")
    saved = json.loads((tmp_path / "b" / "config.json").read_text())
    # What this library does not use is kept.
    assert saved["attention_scale"] == 16.0
    assert saved.items() >= CONFIG.items()


def test_a_config_may_be_nested(tmp_path):
    directory = write(tmp_path / "a")
    (directory / "config.json").write_text(json.dumps({"config": CONFIG, "torch_seed": 3}))
    assert glm_jax.load(directory).config.num_layers == 2


def test_model_type_decides_nothing(tmp_path):
    assert glm_jax.load(write(tmp_path / "a", model_type="llama")).config.num_layers == 2


def test_a_prefix_is_read_and_written_back(tmp_path):
    prefixed = {f"glm.{key}": tensor for key, tensor in TENSORS.items()}
    lm = glm_jax.load(write(tmp_path / "a", tensors=prefixed))
    lm.save(tmp_path / "b")
    same_tensors(tmp_path / "b" / "model.safetensors", prefixed)
    lm.save(tmp_path / "c", names="original")
    same_tensors(tmp_path / "c" / "model.safetensors", TENSORS)


def test_weights_in_several_files_with_an_index(tmp_path):
    lm = glm_jax.load(write(tmp_path / "a"))
    small = SaveAs(max_shard_bytes=100_000)
    save_directory(tmp_path / "b", lm.config, lm.params, huggingface.Origin(), small)
    files = sorted(path.name for path in (tmp_path / "b").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "b" / file).stat().st_size < 120_000 for file in files)
    glm_jax.load(tmp_path / "b").save(tmp_path / "c")
    same_tensors(tmp_path / "c" / "model.safetensors", TENSORS)
    # Files that no index names are not looked at.
    (tmp_path / "b" / "stray.safetensors").write_bytes(b"nothing")
    glm_jax.load(tmp_path / "b")
    (tmp_path / "b" / files[1]).unlink()
    with pytest.raises(UserError, match=rf"{files[1]} is missing"):
        glm_jax.load(tmp_path / "b")


def test_stacked_layers_are_written_listed(tmp_path):
    lm = glm_jax.load(write(tmp_path / "a"))
    save_directory(tmp_path / "b", lm.config, stack_layers(lm.params), huggingface.Origin())
    same_tensors(tmp_path / "b" / "model.safetensors", TENSORS)


def test_dtype_converts(tmp_path):
    lm = glm_jax.load(write(tmp_path / "a"), dtype="bfloat16", compute_dtype="bfloat16")
    assert (lm.config.param_dtype, lm.config.compute.dtype) == ("bfloat16", "bfloat16")
    table = np.asarray(lm.params["embedding"]["table"])
    expected = TENSORS["word_embeddings.weight"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(table, expected)
    with pytest.raises(UserError, match="'int8'"):
        glm_jax.load(tmp_path / "a", dtype="int8")


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"'THUDM/glm-10b'.*downloaded first"):
        glm_jax.load("THUDM/glm-10b")
    with pytest.raises(UserError, match=r"neither config.json .* nor run.json"):
        glm_jax.load(tmp_path)


def test_damaged_files_are_named(tmp_path):
    directory = write(tmp_path / "a")
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"model.safetensors is damaged or incomplete"):
        glm_jax.load(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no weights: none of model.safetensors, "):
        glm_jax.load(directory)
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config.json"):
        glm_jax.load(directory)


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path):
    fewer = {key: tensor for key, tensor in TENSORS.items() if key != DENSE}
    with pytest.raises(UserError, match=rf"missing {DENSE}; unknown none"):
        glm_jax.load(write(tmp_path / "a", tensors=fewer))
    more = {**TENSORS, "transformer.layers.2.extra": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=r"missing none; unknown transformer.layers.2.extra"):
        glm_jax.load(write(tmp_path / "a", tensors=more))
    with pytest.raises(UserError, match=r"missing .*transformer.layers.2.* and 7 more"):
        glm_jax.load(write(tmp_path / "a", num_layers=3))
    other = {**TENSORS, DENSE: np.zeros((64, 60), np.float32)}
    with pytest.raises(UserError, match=rf"{DENSE} .*\(64, 60\); .* \(64, 64\)"):
        glm_jax.load(write(tmp_path / "a", tensors=other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": None}, "must be a whole number; got None"),
        ({"relative_encoding": True}, "relative_encoding"),
        ({"num_attention_heads": 5}, "embed_dim=64, num_heads=5"),
    ],
)
def test_configs_that_cannot_be_used_say_why(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        glm_jax.load(write(tmp_path / "a", **change))


def test_an_unknown_architecture_names_those_known(tmp_path):
    config = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 128}
    with pytest.raises(UserError, match=r"GLM \(2021\) needs .*\(missing: .*num_layers\)"):
        glm_jax.load(write(tmp_path / "a", config=config))


def test_saving_never_replaces_what_is_not_a_model(tmp_path):
    lm = glm_jax.load(write(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years")
    shutil.copy(tmp_path / "a" / "config.json", tmp_path / "b")
    with pytest.raises(UserError, match="holds more than a model"):
        lm.save(tmp_path / "b")
    assert (tmp_path / "b" / "thesis.tex").read_text() == "years"
    (tmp_path / "c").write_text("a file")
    with pytest.raises(UserError, match="is a file"):
        lm.save(tmp_path / "c")
    # An empty directory, and a model, are replaced.
    (tmp_path / "d").mkdir()
    lm.save(tmp_path / "d")
    lm.save(tmp_path / "d")
    same_tensors(tmp_path / "d" / "model.safetensors", TENSORS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    lm = glm_jax.load(write(tmp_path / "a"))
    lm.save(tmp_path / "b")

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(huggingface, "write_safetensors", fail)
    with pytest.raises(OSError, match="disk full"):
        lm.save(tmp_path / "b")
    same_tensors(tmp_path / "b" / "model.safetensors", TENSORS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_names_and_formats_that_are_not_there(tmp_path):
    lm = glm_jax.load(write(tmp_path / "a"))
    with pytest.raises(UserError, match=r"GLM \(2021\) has no native names"):
        lm.save(tmp_path / "b", names="native")
    with pytest.raises(UserError, match=r"names must be .* 'new'"):
        lm.save(tmp_path / "b", names="new")
    with pytest.raises(UserError, match=r"format must be .* 'gguf'"):
        lm.save(tmp_path / "b", format="gguf")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("chatglm2", "as_loaded"),
        ("chatglm2", "original"),
        ("chatglm2", "native"),
        ("chatglm3", "native"),
        ("glm4_9b", "as_loaded"),
        ("glm4_9b", "original"),
        ("glm4_9b", "native"),
        ("glm4_0414", "as_loaded"),
        ("glm4_0414", "native"),
    ],
)
def test_every_scheme_there_and_back_is_the_same_to_the_bit(tmp_path, model, names, dtype):
    tensors = {
        key: tensor.astype(dtype)
        for key, tensor in load_file(CHATGLM / model / "model.safetensors").items()
    }
    config = json.loads((CHATGLM / model / "config.json").read_text())
    lm = glm_jax.load(write(tmp_path / "a", config, tensors))
    assert lm.config.param_dtype == np.dtype(dtype).name
    lm.save(tmp_path / "b", names=names)
    other = glm_jax.load(tmp_path / "b")
    for path, leaf in to_paths(lm.params).items():
        found = to_paths(other.params)[path]
        assert found.dtype == leaf.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(leaf), err_msg=path)
    back = "native" if model.startswith("glm4") else "original"
    other.save(tmp_path / "c", names=back)
    same_tensors(tmp_path / "c" / "model.safetensors", tensors)
    again = json.loads((tmp_path / "c" / "config.json").read_text())
    common = config.keys() & again.keys() - {"torch_dtype", "dtype"}
    assert {key: again[key] for key in common} == {key: config[key] for key in common}


def test_native_files_are_those_of_the_reference(tmp_path):
    glm_jax.load(CHATGLM / "chatglm2").save(tmp_path / "a", names="native")
    expected = load_file(CHATGLM / "chatglm2" / "model_native_names.safetensors")
    same_tensors(tmp_path / "a" / "model.safetensors", expected)
    # And they load as what they were.
    native = json.loads((CHATGLM / "chatglm2" / "config_native.json").read_text())
    lm = glm_jax.load(write(tmp_path / "b", native, expected))
    lm.save(tmp_path / "c", names="original")
    original = load_file(CHATGLM / "chatglm2" / "model.safetensors")
    same_tensors(tmp_path / "c" / "model.safetensors", original)


def test_a_model_without_an_origin_is_written_for_transformers(tmp_path):
    lm = glm_jax.load(CHATGLM / "chatglm2")
    new = LanguageModel(lm.config, lm.params, glm_jax.load_tokenizer("bundled"))
    new.save(tmp_path / "a")
    values = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (values["model_type"], values["architectures"]) == ("glm", ["GlmForCausalLM"])
    special = glm_jax.load_tokenizer("bundled").special
    assert (values["eos_token_id"], values["pad_token_id"]) == (special.eos, special.pad)
    new.save(tmp_path / "b", names="original")
    expected = load_file(CHATGLM / "chatglm2" / "model.safetensors")
    same_tensors(tmp_path / "b" / "model.safetensors", expected)


def test_files_beside_the_weights_go_along(tmp_path):
    directory = write(tmp_path / "a")
    (directory / "generation_config.json").write_text('{"top_p": 0.8}')
    (directory / "tokenizer_config.json").write_text("{}")
    lm = glm_jax.load(directory)
    lm.save(tmp_path / "b")
    assert (tmp_path / "b" / "generation_config.json").read_text() == '{"top_p": 0.8}'
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == {path.name for path in directory.iterdir()}


def test_both_keys_of_the_dtype(tmp_path):
    for key in ("dtype", "torch_dtype"):
        lm = glm_jax.load(write(tmp_path / key, **{key: "float16"}), dtype="bfloat16")
        lm.save(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / "config.json").read_text())
        assert saved[key] == "bfloat16"


def test_progress_is_told_of_every_tensor(tmp_path):
    seen = []

    def progress(items, total):
        for item in items:
            seen.append(total)
            yield item

    lm = glm_jax.load(CHATGLM / "chatglm2", progress=progress)
    assert seen == [17] * 17
    seen.clear()
    lm.save(tmp_path / "a", names="native", progress=progress)
    assert seen == [25] * 25


def test_bin_files_through_their_index(tmp_path):
    torch = pytest.importorskip("torch")
    lm = glm_jax.load(CHATGLM / "chatglm2", dtype="bfloat16")
    tensors = {
        key: torch.tensor(tensor).bfloat16()
        for key, tensor in load_file(CHATGLM / "chatglm2" / "model.safetensors").items()
    }
    tensors["transformer.rotary_pos_emb.inv_freq"] = torch.ones(4)
    shutil.copy(CHATGLM / "chatglm2" / "config.json", tmp_path)
    weight_map = {}
    for number in range(2):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        part = {key: tensors[key] for key in list(tensors)[number::2]}
        torch.save(part, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    found = glm_jax.load(tmp_path)
    assert found.config == lm.config
    for path, leaf in to_paths(lm.params).items():
        np.testing.assert_array_equal(to_paths(found.params)[path], leaf, err_msg=path)


@pytest.mark.processes
def test_parameters_on_a_mesh_are_read_and_written_piece_by_piece(tmp_path):
    code = f"""
import jax, glm_jax, numpy as np
from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import make_mesh
mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))
lm = glm_jax.load({str(CHATGLM / "chatglm2")!r}, mesh=mesh)
assert len(lm.params["embedding"]["table"].sharding.device_set) == 4
assert lm.params["embedding"]["table"].addressable_shards[0].data.shape == (160, 32)
lm.save({str(tmp_path / "a")!r}, names="native")
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **flags})
    expected = load_file(CHATGLM / "chatglm2" / "model_native_names.safetensors")
    same_tensors(tmp_path / "a" / "model.safetensors", expected)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "light", "was", "good", "."]


@pytest.fixture(params=["vocab.txt", "vocab.json", "cog-pretrain.model", "tokenizer.model"])
def with_vocabulary(request, tmp_path):
    """A GLM (2021) with one of its four kinds of vocabulary, or with our own."""
    directory = write(tmp_path / "a")
    if request.param == "vocab.txt":
        (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    elif request.param == "vocab.json":
        pieces = [*byte_characters().values(), "<|endoftext|>"]
        ids = {piece: id_ for id_, piece in enumerate(pieces)}
        (directory / "vocab.json").write_text(json.dumps(ids))
        (directory / "merges.txt").write_text("#version: 0.2\n")
    elif request.param == "cog-pretrain.model":
        shutil.copy(tokenizer_file(), directory / "cog-pretrain.model")
    else:
        glm_jax.load_tokenizer("bundled").save(directory)
    return directory


def test_a_vocabulary_goes_along_and_a_model_is_saved_twice(with_vocabulary, tmp_path):
    files = {path.name: path.read_bytes() for path in with_vocabulary.iterdir()}
    lm = glm_jax.load(with_vocabulary)
    for format in ("huggingface", "orbax"):
        for _ in range(2):
            lm.save(tmp_path / format, format=format)
        again = glm_jax.load(tmp_path / format)
        assert again.tokenizer.fingerprint == lm.tokenizer.fingerprint
        for _ in range(2):
            again.save(tmp_path / "back")
        saved = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
        assert saved.keys() - {"glm_tokenizer.json"} == files.keys()
        for name in files.keys() - {"config.json", "model.safetensors"}:
            assert saved[name] == files[name], name


def test_another_directory_with_our_files_is_still_refused(with_vocabulary, tmp_path):
    lm = glm_jax.load(with_vocabulary)
    for format in ("huggingface", "orbax"):
        lm.save(tmp_path / format, format=format)
        (tmp_path / format / "notes.txt").write_text("mine")
        with pytest.raises(UserError, match="holds more than a model"):
            lm.save(tmp_path / format, format=format)
    with pytest.raises(UserError, match="holds more than a model"):
        lm.save(tmp_path / "huggingface", format="orbax")


def chatglm(directory, tensors=(), **values):
    """A copy of the golden ChatGLM2 with other values and tensors."""
    directory.mkdir()
    config = json.loads((CHATGLM / "chatglm2" / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **values}))
    found = load_file(CHATGLM / "chatglm2" / "model.safetensors")
    save_file({**found, **dict(tensors)}, directory / "model.safetensors")
    return directory


def test_what_ends_a_text_is_what_generation_config_says(tmp_path):
    directory = chatglm(tmp_path / "a", eos_token_id=319)
    (first,) = glm_jax.load(directory).generate([[5, 6]], max_new_tokens=4, eos_ids=[])
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [first[1], 7]}))
    lm = glm_jax.load(directory)
    assert lm.generate([[5, 6]], max_new_tokens=4) == [first[:1]]
    # Through this project's own format and back.
    lm.save(tmp_path / "b", format="orbax")
    again = glm_jax.load(tmp_path / "b")
    assert again.generate([[5, 6]], max_new_tokens=4) == [first[:1]]
    again.save(tmp_path / "c", names="original")
    assert glm_jax.load(tmp_path / "c").generate([[5, 6]], max_new_tokens=4) == [first[:1]]
    saved = json.loads((tmp_path / "c" / "config.json").read_text())
    assert saved["eos_token_id"] == [first[1], 7]


def test_ends_beyond_the_vocabulary(tmp_path):
    lm = glm_jax.load(chatglm(tmp_path / "a", eos_token_id=[2, 151329]))
    with pytest.raises(UserError, match=r"eos_ids must be at most 319; got 151329"):
        lm.generate([[5, 6]])
    with pytest.raises(UserError, match=r"eos_ids must be at least 0; got -1"):
        lm.generate([[5, 6]], eos_ids=[-1])
    assert len(lm.generate([[5, 6]], eos_ids=[2], max_new_tokens=2)[0]) <= 2
    with pytest.raises(UserError, match=r"end_ids must be at most 127; got 1099511627776"):
        glm_jax.load(write(tmp_path / "b")).fill_blanks(
            [1, 2], mask_ids=[2], start_id=3, end_ids=[2**40]
        )
    with pytest.raises(UserError, match=r"start_id must be at most 127; got 128"):
        glm_jax.load(tmp_path / "b").fill_blanks([1, 2], mask_ids=[2], start_id=128, end_ids=[4])


def test_weights_that_are_no_numbers_are_named(tmp_path, caplog):
    key = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"
    tensor = load_file(CHATGLM / "chatglm2" / "model.safetensors")[key]
    one = tensor.copy()
    one[3, 4] = np.inf
    for number, odd in enumerate((np.full_like(tensor, np.nan), one)):
        lm = glm_jax.load(chatglm(tmp_path / f"a{number}", {key: odd}))
        lm.save(tmp_path / f"b{number}", format="orbax")
        glm_jax.load(tmp_path / f"b{number}")
        said = [record.getMessage() for record in caplog.records]
        assert said == [
            f"NaN or infinite values in {tmp_path / f'a{number}'}: {key}",
            f"NaN or infinite values in {tmp_path / f'b{number}'}: layers/1/mlp/down/kernel",
        ]
        caplog.clear()
    # Also where a conversion only copies.
    main([str(tmp_path / "a0"), str(tmp_path / "copy"), "--names", "native"])
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"NaN or infinite values in {tmp_path / 'copy'}: model.layers.1.mlp.down_proj.weight"
    ]
    caplog.clear()
    # Also where only the dtype asked for cannot hold them.
    large = np.where(np.arange(tensor.size).reshape(tensor.shape) == 9, 1e6, tensor)
    path = chatglm(tmp_path / "c", {key: large.astype(np.float32)})
    glm_jax.load(path)
    assert not caplog.records
    glm_jax.load(path, dtype="float16")
    assert [r.getMessage() for r in caplog.records] == [f"NaN or infinite values in {path}: {key}"]


def test_links_of_the_hub_are_read_and_others_are_not_given_away(tmp_path, caplog):
    whole = chatglm(tmp_path / "whole")
    (whole / "tokenizer_config.json").write_text('{"a": 1}')
    snapshot = tmp_path / "models--A--B" / "snapshots" / "0123"
    blobs = tmp_path / "models--A--B" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in whole.iterdir():
        shutil.copyfile(path, blobs / f"hash-{path.stem}")
        (snapshot / path.name).symlink_to(f"../../blobs/hash-{path.stem}")
    secret = tmp_path / "secret"
    secret.write_text("\n".join(WORDS) + "\n")
    (snapshot / "vocab.txt").symlink_to(secret)
    (snapshot / "tokenizer.json").symlink_to(secret)
    lm = glm_jax.load(snapshot)
    assert lm.tokenizer is None
    lm.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
    }
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("the model comes without a tokenizer: ")
    assert sum("is left out: it is a link to" in line for line in said) == 2
