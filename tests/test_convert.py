import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import glm_jax
from glm_jax.convert import main
from glm_jax.errors import UserError
from glm_jax.interop import huggingface
from glm_jax.models.trees import to_paths
from tests.interop.lora_directories import added, base_of, random_pairs, write_lora
from tests.interop.prefix_directories import write_ptuning

GOLDEN = Path(__file__).parent / "golden" / "chatglm"
WEIGHTS = "model.safetensors"
CHATGLM2 = str(GOLDEN / "chatglm2")


def same_tensors(path, expected):
    found = load_file(path)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        np.testing.assert_array_equal(found[key], tensor, err_msg=key)


def test_names_are_converted(tmp_path, capsys):
    assert main([CHATGLM2, str(tmp_path / "a"), "--names", "native"]) == 0
    expected = load_file(GOLDEN / "chatglm2" / "model_native_names.safetensors")
    same_tensors(tmp_path / "a" / "model.safetensors", expected)
    shown = capsys.readouterr()
    assert "files        model.safetensors, config.json" in shown.out
    assert "converting: 100%" in shown.err
    assert "25/25" in shown.err


def test_through_a_checkpoint_of_this_project_and_back(tmp_path, capsys):
    assert main([CHATGLM2, str(tmp_path / "a"), "--to", "orbax"]) == 0
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--names", "original"]) == 0
    shown = capsys.readouterr().err
    assert "reading: 100%" in shown
    assert "writing: 100%" in shown
    expected = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    same_tensors(tmp_path / "b" / "model.safetensors", expected)


def test_the_dtype_is_converted(tmp_path):
    assert main([CHATGLM2, str(tmp_path / "a"), "--dtype", "bfloat16"]) == 0
    assert glm_jax.load(tmp_path / "a").config.param_dtype == "bfloat16"
    assert json.loads((tmp_path / "a" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("to", ["huggingface", "orbax"])
def test_a_prefix_is_put_beside_the_model(tmp_path, capsys, to):
    adapter = write_ptuning(tmp_path / "prefix", "chatglm2", "proj")
    command = [CHATGLM2, str(tmp_path / "a"), "--to", to, "--adapter", str(adapter)]
    assert main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "a").exists()
    assert "prefix_length=4, prefix_projection=64" in capsys.readouterr().out
    assert main(command) == 0
    expected = glm_jax.load(CHATGLM2, adapter=adapter)
    found = glm_jax.load(tmp_path / "a")
    assert found.config == expected.config
    for path, leaf in to_paths(expected.params).items():
        np.testing.assert_array_equal(to_paths(found.params)[path], leaf, err_msg=path)
    # From there it goes on as any model, and the names of transformers have no place for it.
    if to == "huggingface":
        half = [str(tmp_path / "a"), str(tmp_path / "b"), "--dtype", "bfloat16"]
        assert main(half) == 0
        table = glm_jax.load(tmp_path / "b").params["prefix"]["rows"]["table"]
        np.testing.assert_array_equal(table, found.params["prefix"]["rows"]["table"])
        with pytest.raises(UserError, match="has no prefix"):
            main([str(tmp_path / "a"), str(tmp_path / "c"), "--names", "native"])
        with pytest.raises(UserError, match="give another directory"):
            main([CHATGLM2, str(adapter), "--adapter", str(adapter), "--overwrite"])


@pytest.fixture
def lora(tmp_path):
    """(directory, the tensors of the base with it added)."""
    _, tensors = base_of("chatglm2")
    pairs = random_pairs(tensors, ["query_key_value", "dense_4h_to_h"])
    return write_lora(tmp_path / "lora", pairs), added(tensors, pairs)


@pytest.mark.parametrize("to", ["huggingface", "orbax"])
def test_a_lora_is_folded_in(tmp_path, capsys, lora, to):
    adapter, expected = lora
    command = [CHATGLM2, str(tmp_path / "a"), "--to", to, "--adapter", str(adapter)]
    assert main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "a").exists()
    assert "adapter      LoRA of 8 matrices, rank 3" in capsys.readouterr().out
    assert main(command) == 0
    glm_jax.load(tmp_path / "a").save(tmp_path / "b", names="original")
    found = load_file(tmp_path / "b" / WEIGHTS)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        np.testing.assert_allclose(found[key], tensor, atol=2e-6, rtol=0, err_msg=key)
    with pytest.raises(UserError, match="give another directory"):
        main([CHATGLM2, str(adapter), "--adapter", str(adapter), "--overwrite"])


def test_a_lora_is_folded_in_before_matrices_are_quantised(tmp_path, lora):
    adapter = str(lora[0])
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    assert main([CHATGLM2, one, "--adapter", adapter]) == 0
    assert main([one, two, "--quantize", "int4"]) == 0
    assert main([CHATGLM2, three, "--adapter", adapter, "--quantize", "int4"]) == 0
    same_tensors(Path(two, WEIGHTS), load_file(Path(three, WEIGHTS)))
    with pytest.raises(UserError, match=r"two' is quantised, .*: give --dequantize, or the model"):
        main([two, str(tmp_path / "four"), "--adapter", adapter])
    assert main([two, str(tmp_path / "four"), "--adapter", adapter, "--dequantize"]) == 0
    assert "quantization_bit" not in json.loads((tmp_path / "four" / "config.json").read_text())


def test_a_lora_of_another_model_is_refused_before_anything_is_loaded(tmp_path, lora):
    with pytest.raises(UserError, match="is for another model"):
        main([str(GOLDEN / "glm4_0414"), str(tmp_path / "a"), "--adapter", str(lora[0])])
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("to", ["huggingface", "orbax"])
def test_a_dry_run_writes_nothing(tmp_path, capsys, to):
    assert main([CHATGLM2, str(tmp_path / "a"), "--to", to, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
    out = capsys.readouterr().out
    assert "ChatGLM2/3" in out
    assert "parameters   109,120" in out
    assert "bytes        436,480" in out


def test_mistakes_are_said_before_anything_is_read(tmp_path):
    target = str(tmp_path / "a")
    with pytest.raises(UserError, match=r"no directory 'THUDM/chatglm2-6b'.*downloaded first"):
        main(["THUDM/chatglm2-6b", target])
    with pytest.raises(UserError, match=r"neither config.json"):
        main([str(tmp_path), target])
    with pytest.raises(UserError, match="GLM-4-0414 has no original names"):
        main([str(GOLDEN / "glm4_0414"), target, "--names", "original"])
    with pytest.raises(UserError, match="--names is for --to huggingface"):
        main([CHATGLM2, target, "--to", "orbax", "--names", "native"])
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="holds more than a model"):
        main([CHATGLM2, str(tmp_path), "--dry-run"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_model_is_quantised_and_made_plain_again(tmp_path, capsys):
    four = str(tmp_path / "int4")
    options = ["--quantize", "int4", "--group_size", "16", "--scale_search"]
    assert main([CHATGLM2, four, *options, "--quantize_embedding", "--dry-run"]) == 0
    assert "quantised    int4, 16 of 16 matrices, a scale per group of inputs" in (
        capsys.readouterr().out
    )
    assert not Path(four).exists()
    assert main([CHATGLM2, four, *options]) == 0
    out = capsys.readouterr().out
    assert "parameters   109,120" in out  # as without
    assert "quantised    int4, 14 of 16 matrices, a scale per group of inputs" in out
    tensors = load_file(tmp_path / "int4" / "model.safetensors")
    assert f"bytes        {sum(tensor.nbytes for tensor in tensors.values()):,}" in out
    how = glm_jax.Quantize(4, 16, search=True)
    expected = glm_jax.load(CHATGLM2, quantize=how)
    expected.save(tmp_path / "saved")
    same_tensors(tmp_path / "int4" / "model.safetensors", load_file(tmp_path / "saved" / WEIGHTS))

    # Tensor by tensor, with other names of files alone; through this project's format; and plain.
    assert main([four, str(tmp_path / "again"), "--names", "original"]) == 0
    same_tensors(tmp_path / "again" / "model.safetensors", tensors)
    assert main([four, str(tmp_path / "orbax"), "--to", "orbax"]) == 0
    assert main([str(tmp_path / "orbax"), str(tmp_path / "back")]) == 0
    assert "quantised    int4, 14 of 16" in capsys.readouterr().out
    same_tensors(tmp_path / "back" / "model.safetensors", tensors)
    assert main([four, str(tmp_path / "plain"), "--dequantize", "--names", "native"]) == 0
    assert "quantised    no" in capsys.readouterr().out
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    up = expected.params["layers"]["1"]["mlp"]["down"]["kernel"].used("float32")
    np.testing.assert_array_equal(plain["model.layers.1.mlp.down_proj.weight"].T, up)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quantize", "int4", "--dequantize"], "--dequantize and --quantize ask for opposite"),
        (["--dequantize"], r"--dequantize: the model in .* is not quantised"),
        (["--group_size", "16"], "--group_size goes with --quantize int8 or int4"),
        (["--quantize", "int4", "--group_size", "48"], "48 does not divide the 64 inputs of lay"),
        (["--quantize", "int4", "--group_size", "1"], "group_size must be a whole number, at lea"),
        (["--quantize", "int8", "--names", "native"], "cannot say quantised weights, transformers"),
    ],
)
def test_what_cannot_be_quantised_is_said_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        main([CHATGLM2, str(tmp_path / "a"), *arguments])
    assert list(tmp_path.iterdir()) == []


def test_a_quantised_model_is_not_quantised_again(tmp_path):
    assert main([CHATGLM2, str(tmp_path / "a"), "--quantize", "int8"]) == 0
    with pytest.raises(UserError, match=r"--quantize: the model in .* is quantised already"):
        main([str(tmp_path / "a"), str(tmp_path / "b"), "--quantize", "int8"])


def everything(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_what_is_there_is_replaced_only_if_that_is_asked_for(tmp_path, capsys):
    for to in ("huggingface", "orbax"):
        target = str(tmp_path / to)
        arguments = [CHATGLM2, target, "--to", to]
        assert main(arguments) == 0
        assert capsys.readouterr().out.endswith(f"\nwritten      {target}\n")
        before = everything(tmp_path)
        with pytest.raises(UserError, match=r"holds a model already; --overwrite replaces it"):
            main([*arguments, "--dtype", "bfloat16"])
        assert main([*arguments, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert said.endswith(f"\nwould write  {target}, in place of the model there\n")
        assert everything(tmp_path) == before
        assert main([*arguments, "--dtype", "bfloat16", "--overwrite"]) == 0
        assert glm_jax.load(target).config.param_dtype == "bfloat16"
    capsys.readouterr()
    assert main([CHATGLM2, str(tmp_path / "new"), "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(f"\nwould write  {tmp_path / 'new'}\n")
    (tmp_path / "empty").mkdir()
    assert main([CHATGLM2, str(tmp_path / "empty")]) == 0


@pytest.mark.parametrize(("answer", "replaced"), [("y", True), ("", False), ("no", False)])
def test_at_a_terminal_it_asks(tmp_path, monkeypatch, answer, replaced):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    target = tmp_path / "a"
    main([CHATGLM2, str(target)])
    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n" if answer else ""))
    monkeypatch.setattr(sys, "stderr", asked)
    before = everything(target)
    if replaced:
        assert main([CHATGLM2, str(target), "--dtype", "bfloat16"]) == 0
        assert everything(target) != before
    else:
        with pytest.raises(UserError, match="stays as it is; nothing written"):
            main([CHATGLM2, str(target), "--dtype", "bfloat16"])
        assert everything(target) == before
    assert f"'{target}' holds a model already; replace it? [y/N] " in asked.getvalue()


def test_a_link_is_written_behind(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    assert main([CHATGLM2, str(tmp_path / "link")]) == 0
    assert main([CHATGLM2, str(tmp_path / "link"), "--dtype", "bfloat16", "--overwrite"]) == 0
    assert (tmp_path / "link").is_symlink()
    assert glm_jax.load(tmp_path / "disk" / "model").config.param_dtype == "bfloat16"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model"]


def test_source_and_destination_are_apart(tmp_path, monkeypatch):
    main([CHATGLM2, str(tmp_path / "model" / "in")])
    (tmp_path / "link").symlink_to(tmp_path / "model" / "in")
    source = str(tmp_path / "model" / "in")
    before = everything(tmp_path)
    for target in (source, str(tmp_path / "link"), str(tmp_path / "model"), source + "/../in"):
        with pytest.raises(UserError, match=r"is or holds .*, from which the model is read; give"):
            main([source, target, "--overwrite"])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for to in ("huggingface", "orbax"):
        with pytest.raises(UserError, match=r"'\.' is the directory you are in"):
            main([source, ".", "--to", to])
    assert everything(tmp_path) == before
    assert main([source, "out"]) == 0


def test_a_disk_that_is_full_is_one_sentence(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface, "write_safetensors", full)
    with pytest.raises(UserError, match=r"a' could not be written: No space left on device"):
        main([CHATGLM2, str(tmp_path / "a")])
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_goes_along_in_every_direction(tmp_path, capsys):
    source = tmp_path / "glm"
    source.mkdir()
    generation = GOLDEN.parent / "glm" / "generation"
    config = json.loads((generation / "cases.json").read_text())["config"]
    (source / "config.json").write_text(json.dumps(config))
    shutil.copy(generation / "state_dict.safetensors", source / "model.safetensors")
    (source / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    assert main([str(source), str(tmp_path / "a")]) == 0
    assert "files        model.safetensors, vocab.txt, config.json\n" in capsys.readouterr().out
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--to", "orbax"]) == 0
    assert "files        run.json, checkpoints/0/, vocab.txt\n" in capsys.readouterr().out
    assert main([str(tmp_path / "b"), str(tmp_path / "c")]) == 0
    for name in "abc":
        assert (tmp_path / name / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
        assert glm_jax.load(tmp_path / name).tokenizer.encode("the") == [5]


@pytest.mark.processes
def test_a_mistake_is_one_sentence_and_status_2(tmp_path):
    shutil.copytree(GOLDEN / "chatglm2", tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    command = [sys.executable, "-m", "glm_jax.convert", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path} is damaged or incomplete")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "b").exists()


@pytest.mark.processes
@pytest.mark.parametrize("to", ["huggingface", "orbax"])
def test_a_killed_conversion_leaves_nothing_that_looks_complete(tmp_path, to):
    """Killed where the first tensor is written, or orbax has begun."""
    shutil.copytree(GOLDEN / "chatglm2", tmp_path / "source")
    target = tmp_path / "target"
    code = f"""
import sys, time
sys.argv = ["convert", {str(tmp_path / "source")!r}, {str(target)!r}, "--to", {to!r}]
import orbax.checkpoint.experimental.v1 as ocp
import glm_jax.convert, glm_jax.interop.huggingface as huggingface
from glm_jax import cli
write = huggingface.write_safetensors

def slow(path, tensors):
    for name in write(path, tensors):
        print("written", flush=True)
        time.sleep(60)
        yield name

def stop(*arguments, **options):
    print("written", flush=True)
    time.sleep(60)

huggingface.write_safetensors = slow
ocp.save_checkpointables = stop
cli.run(glm_jax.convert.main)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert not target.exists()
    left = [path for path in tmp_path.iterdir() if path.name != "source"]
    assert [path.name.startswith(".target.new-") for path in left] == [True]
    with pytest.raises(UserError):
        glm_jax.load(left[0])
    # The next conversion clears up.
    assert main([str(tmp_path / "source"), str(target), "--to", to]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    assert glm_jax.load(target).config.num_layers == 2
