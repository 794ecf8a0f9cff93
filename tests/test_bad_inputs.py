"""What a user can get wrong: each ends a command with one sentence and status 2, nothing lost.

In this process, through the same `cli.run` as `python -m glm_jax.NAME`.
"""

import importlib
import json
import shutil
import sys
from pathlib import Path

import jax
import pytest

from glm_jax import cli
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer

CONFIGS = Path(__file__).parents[1] / "configs"
CHATGLM = Path(__file__).parent / "golden" / "chatglm"
TINY = ["--config", str(CONFIGS / "tiny_cpu.py")]
RUN = ["--workdir", "run"]
TIMED = ["--workdir", "timed"]
# A record of three bytes whose checksum is that of others; its length has the right one.
FLIPPED = bytes.fromhex("0300000000000000b099490e") + b"abc" + bytes(4)


@pytest.fixture(scope="module")
def glm(tmp_path_factory):
    """A model that fills blanks, with its tokenizer."""
    config = ModelConfig(num_layers=1, embed_dim=16, num_heads=2, max_positions=128)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    model = LanguageModel(config, create_params(config, mesh, seed=0), load_tokenizer("bundled"))
    path = tmp_path_factory.mktemp("models") / "glm"
    model.save(path, format="orbax")
    return path


def chatglm_config(old="", new=""):
    """The config.json of a small ChatGLM2, with something else in it."""
    text = (CHATGLM / "chatglm2" / "config.json").read_text()
    assert old in text
    return text.replace(old, new) if old else text


@pytest.fixture
def here(tmp_path, monkeypatch, glm):
    """A directory of a user: files good and bad, a workdir of an older run, an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    files = {
        "text.txt": "A text.\n\nAnother one.\n",
        "empty.txt": "",
        "text.csv": "a,b\n",
        "no_text.jsonl": '{"body": "a"}\n',
        "syntax.py": "def get_config(:\n",
        "no_function.py": "x = 1\n",
        "field.py": "from glm_jax.config import *\ndef get_config():\n"
        "    return Config(train=TrainConfig(num_step=3))\n",
        "other.py": "def get_config():\n    return 7\n",
        "not_a_model.model": "x",
        "old/run.json": '{"model": {"num_layers": 3}}',
        "old/metrics.jsonl": '{"step": 1, "loss": 2.0}\n',
        "timeless/metrics.jsonl": '{"step": 1, "loss": 2.0}\n',
        "timeless/goodput.jsonl": '{"step": 1, "loss": 2.0}\n',
        "timed/metrics.jsonl": '{"step": 1, "loss": 2.0}\n',
        "timed/goodput.jsonl": '{"start": 1, "began": 9, "first_step": 0, "step": 1, '
        '"processes": 1, "tokens_per_step": 64, "nanoseconds": {"steps": 5}}\n',
        "odd/samples.txt/a": "",
        "torn/run.json": '{"model": ',
        "unrecorded/checkpoints/4/params/a": "",
        "full/letter.txt": "dear",
        "store/store.json": "{",
        "hf_empty/config.json": "{}",
        "hf_list/config.json": "[",
        "older/store.json": '{"format": 1}',
        "nul.txt": "\0w\0o\0r\0d",
        "utf16.txt": b"\xff\xfew\0o\0r\0d\0",
        "packed.tfrecord": b"\x1f\x8b\x08\0\0",
        "flipped.tfrecord": FLIPPED,
        "unknown_data/run.json": "{}",
        "unknown_data/data.json": "[]",
        "hf_deep/config.json": '{"a":' * 1000 + "1" + "}" * 1000,
        "hf_huge/config.json": chatglm_config('"num_layers": 2', '"num_layers": 1000000000'),
        "hf_eos/config.json": chatglm_config('"eos_token_id": 2', '"eos_token_id": "2"'),
        "hf_nan/config.json": chatglm_config("1e-05", "NaN"),
        "hf_model/config.json": chatglm_config(),
        "hf_out/config.json": chatglm_config(),
        "hf_out/model.safetensors.index.json": '{"weight_map": {"a": "../b.safetensors"}}',
        "hf_numbers/config.json": chatglm_config(),
        "hf_numbers/model.safetensors.index.json": '{"weight_map": {"a": 3}}',
        "listed/run.json": "[]",
        "billion/run.json": '{"model": {"num_layers": 1000000000}}',
        "truth/run.json": '{"model": {"num_layers": true}}',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "hf_cut").mkdir()
    for file in (CHATGLM / "chatglm2").iterdir():
        if file.is_file():
            shutil.copyfile(file, tmp_path / "hf_cut" / file.name)
    for name in ("hf_huge", "hf_eos", "hf_nan", "hf_model"):
        file = "model.safetensors"
        shutil.copyfile(CHATGLM / "chatglm2" / file, tmp_path / name / file)
    weights = tmp_path / "hf_cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "glm").symlink_to(glm)
    return tmp_path


def everything(directory):
    """Each file under a directory, with its content."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(directory.rglob("*"))}


def train(*arguments):
    return "train", [*TINY, *RUN, *arguments]


def override(*settings):
    return train(*(word for setting in settings for word in ("--set", setting)))


CHATGLM2 = str(CHATGLM / "chatglm2")


def sampled(*arguments):
    """Options of draws and searches, with the `glm` of the user's directory."""
    return "generate", ["--checkpoint", "glm", *arguments, "a [MASK]"]


BAD = [
    # Config files.
    (("train", ["--config", "none.py", *RUN]), "no config file 'none.py'"),
    (("train", ["--config", str(CONFIGS / "tiny_cup.py"), *RUN]), "did you mean"),
    (("train", ["--config", "no_function.py", *RUN]), "defines no get_config()"),
    (("train", ["--config", "other.py", *RUN]), "must return a glm_jax.config.Config; got int"),
    (("train", ["--config", "syntax.py", *RUN]), "syntax.py cannot be used: SyntaxError"),
    (("train", ["--config", "field.py", *RUN]), "unexpected keyword argument 'num_step'"),
    # Overrides: names and types.
    (override("train.num_steps"), "an override is NAME=VALUE; got 'train.num_steps'"),
    (override("train.num_step=3"), "did you mean 'train.num_steps'?"),
    (override("trian.num_steps=3"), "unknown config name 'trian.num_steps'"),
    (override("num_steps=3"), "did you mean 'train.num_steps'?"),
    (override("train.lr=3"), "did you mean 'optimizer.peak_learning_rate'?"),
    (override("model.layers=3"), "did you mean 'model.num_layers'?"),
    (override("data.xyzzy=3"), "docs/config.md lists all names"),
    (override("train.num_steps=many"), "train.num_steps takes int; got 'many'"),
    (override("train.num_steps=1.5"), "train.num_steps takes int; got '1.5'"),
    (override("model.tied_embeddings=perhaps"), "model.tied_embeddings takes bool"),
    (override("optimizer.clip_norm=big"), "optimizer.clip_norm takes float or None"),
    # Values.
    (override("train.num_steps=0"), "train.num_steps must be at least 1; got 0"),
    (override("train.seed=-1"), "train.seed must be at least 0; got -1"),
    (override(f"train.seed={2**64}"), f"train.seed must be at most {2**64 - 1}; got {2**64}"),
    (override("train.num_steps=True"), "train.num_steps takes int; got 'True'"),
    (override(f"train.num_steps={2**31}"), "train.num_steps must be at most 2147483647; got"),
    (override(f"train.num_steps={'9' * 5000}"), "train.num_steps takes int; got '999"),
    (override(f"train.num_steps={'(' * 5000}"), "train.num_steps takes int; got '((("),
    (override("optimizer.peak_learning_rate=nan"), "peak_learning_rate takes float; got 'nan'"),
    (override("optimizer.peak_learning_rate=1e999"), "peak_learning_rate must be a finite number"),
    (override(f"optimizer.weight_decay={10**400}"), "weight_decay must be a finite number; got a"),
    (override("optimizer.beta1=0.999999999"), "optimizer.beta1 must be at least 0 and below 1, as"),
    (override("optimizer.epsilon=0"), "optimizer.epsilon must be above 0; got 0"),
    (override("optimizer.clip_norm=1e-50"), "optimizer.clip_norm must be above 0, as float32 too"),
    (override("model.dropout_rate=1"), "model.dropout_rate must be at least 0 and below 1; got 1"),
    (
        override(*(f"objective.{name}_weight=0" for name in ("span", "sentence", "document"))),
        "objective.span_weight, objective.sentence_weight, objective.document_weight must not all",
    ),
    (override("objective.max_span_length=99999999"), "max_span_length must be at most 65536"),
    (override("train.keep_best=-1"), "train.keep_best must be at least 0; got -1"),
    (override("train.best_metric=accuracy"), "train.best_metric must be 'loss', 'eval/loss'"),
    (override("train.loss_reduction=mean"), "train.loss_reduction must be one of"),
    (override("optimizer.schedule=cosin"), "did you mean 'cosine'?"),
    (override("optimizer.name=sgd"), "optimizer.name must be one of"),
    (override("optimizer.beta2=1.5"), "optimizer.beta2 must be at least 0 and below 1; got 1.5"),
    (override("data.sequence_length=8"), "data.sequence_length must be at least 16; got 8"),
    (override("data.batch_size=0"), "data.batch_size must be at least 1; got 0"),
    (override("data.eval_fraction=1.0"), "data.eval_fraction must be above 0 and below 1"),
    (override("objective.span_rate=0.9"), "must sum to 1; got 1.4"),
    (override("objective.mask_ratio=0"), "objective.mask_ratio must be above 0 and below 1"),
    (override("model.num_heads=3"), "num_heads"),
    (override("compute.attention_backend=fast"), "compute.attention_backend must be one of"),
    (override("mesh.data=-1", "mesh.fsdp=-1"), "at most one axis of mesh may be -1"),
    # What does not fit together.
    (override("train.accumulation_steps=3"), "a multiple of train.accumulation_steps; got 8 and 3"),
    (override("data.sequence_length=512"), "needs model.max_positions=512"),
    (override("model.vocab_size=100"), "model.vocab_size must be at least the tokenizer's 7168"),
    (override("mesh.data=64"), "64"),
    (override("model.position_encoding=rotary"), "has no block positions"),
    # Data.
    (override("data.source=none/*.txt"), "no file matches data.source='none/*.txt'"),
    (override("data.source=text.csv"), "'text.csv'"),
    (override("data.source=empty.txt"), "empty.txt"),
    (override("data.source=no_text.jsonl"), "no_text.jsonl"),
    (override("data.tokenizer=none"), "none"),
    (override("data.tokenizer=not_a_model.model"), "not_a_model.model"),
    (override("data.store=store"), "the token store 'store' is damaged"),
    (override("data.source=utf16.txt"), "'utf16.txt' is UTF-16"),
    (override("data.source=nul.txt"), "'nul.txt' is full of NUL bytes"),
    (override("data.source=packed.tfrecord"), "'packed.tfrecord' is compressed (gzip)"),
    (override("data.source=flipped.tfrecord"), "1 with a wrong checksum (flipped.tfrecord:1)"),
    (override("data.store=older"), "the token store 'older' is of another version"),
    (override("train.init_from=no_model"), "no_model"),
    (override("train.init_from=listed"), "listed/run.json is not the record of a run: "),
    (override("train.init_from=hf_out"), "may only name files of its own directory"),
    (
        override(f"train.init_from={CHATGLM2}", "model.num_layers=7"),
        "is a model with model.num_layers=2 (not 7); its shape is the run's",
    ),
    (override("model.num_layers=1000000000"), "model.num_layers must be at most 1000; got 10"),
    (override("model.vocab_size=1000000000000"), "model.vocab_size must be at most 2147483647"),
    (override("model.norm_epsilon=1e999"), "model.norm_epsilon must be a finite number"),
    # Workdirs.
    (("train", [*TINY, "--workdir", "text.txt"]), "the workdir 'text.txt' is a file"),
    (
        ("train", [*TINY, "--workdir", "old"]),
        "was made with another config: model.vocab_size was 8192, is 7168, model.num_layers was 3",
    ),
    (("train", [*TINY, "--workdir", "torn"]), "torn/run.json is not the record of a run"),
    (("train", [*TINY, "--workdir", "unrecorded"]), "holds checkpoints but no run.json"),
    (("train", [*TINY, "--workdir", "unknown_data"]), "is not the record of a run's data"),
    # Options of train.
    (train("--resume_step", "400"), "no checkpoint of step 400 in 'run'; there is none at all"),
    (train("--extend"), "--extend goes on from a checkpoint, and the workdir holds none"),
    (override("optimizer.extended=440"), "optimizer.extended takes tuple or None; got '440'"),
    (override("optimizer.extended=(440,)"), "optimizer.extended must be pairs of a step and"),
    (("train", [*TINY, "--workdir", "odd"]), "'odd/samples.txt' must be a file"),
    (train("--skip_batches", "5"), "--skip_batches needs --resume_step"),
    (train("--process_id", "1"), "--process_id without --coordinator and --num_processes"),
    (
        train(*["--coordinator", "a", "--num_processes", "2", "--process_id", "0"]),
        "HOST:PORT; got 'a'",
    ),
    (train("--join_timeout", "nan"), "--join_timeout must be a finite number"),
    (train("--lost_after", "1"), "--lost_after must be at least 5"),
    (train("--profile", "twenty"), "--profile takes FIRST:COUNT"),
    # The other commands.
    (("generate", ["--checkpoint", "none", "a [MASK]"]), "none"),
    (("generate", ["--checkpoint", "full", "a [MASK]"]), "full"),
    (("generate", ["--checkpoint", "old", "a [MASK]"]), "no checkpoint in"),
    (("generate", ["--checkpoint", "hf_empty", "a"]), "hf_empty"),
    (("generate", ["--checkpoint", "hf_list", "a"]), "hf_list"),
    (("generate", ["--checkpoint", "hf_cut", "a"]), "hf_cut"),
    (("generate", ["--checkpoint", "old"]), "give one of: a prompt"),
    (sampled("--temperature", "nan"), "temperature must be a finite number; got nan"),
    (sampled("--temperature", "1e-46"), "temperature must be 0 (greedy) or at least 1e-06; got"),
    (sampled("--top_p", "nan"), "top_p must be a finite number; got nan"),
    (sampled("--top_k", str(2**31)), "top_k must be at most 2147483647; got 2147483648"),
    (sampled("--seed", "-1"), "seed must be at least 0; got -1"),
    (sampled("--seed", str(2**64)), f"seed must be at most {2**64 - 1}; got {2**64}"),
    (sampled("--max_new_tokens", "0"), "max_new_tokens must be at least 1; got 0"),
    (sampled("--max_new_tokens", str(2**40)), "max_new_tokens must be at most 2147483647"),
    (sampled("--min_new_tokens", "65"), "min_new_tokens must be at most max_new_tokens=64; got 65"),
    (sampled("--no_repeat_ngram", "-1"), "no_repeat_ngram must be at least 0; got -1"),
    (sampled("--num_beams", "0"), "num_beams must be at least 1; got 0"),
    (sampled("--length_penalty", "inf"), "length_penalty must be a finite number; got inf"),
    (sampled("--length_penalty", "6"), "length_penalty must be at least -5 and at most 5; got 6"),
    (
        ("evaluate", ["--checkpoint", CHATGLM2, "--set", "model.num_layers=7"]),
        "--set model.num_layers=7: the model of --checkpoint cannot be changed",
    ),
    (
        ("evaluate", ["--checkpoint", CHATGLM2, "--set", "compute.dtype=bfloat16"]),
        "--set compute.dtype=bfloat16: the model of --checkpoint cannot be changed, nor how",
    ),
    (("convert", ["none", "out"]), "none"),
    (("convert", ["full", "out"]), "full"),
    (("convert", [CHATGLM2, "full"]), "'full' is not empty and holds more than a model"),
    (("convert", [CHATGLM2, "text.txt"]), "'text.txt' is a file"),
    (("convert", [CHATGLM2, "out", "--to", "orbax", "--names", "native"]), "--names is for"),
    (("convert", ["hf_cut", "out"]), "hf_cut"),
    (("convert", ["hf_deep", "out"]), "hf_deep/config.json: it is nested deeper than 100 levels"),
    (("convert", ["hf_huge", "out"]), "model.num_layers must be at most 1000; got 1000000000"),
    (("convert", ["hf_eos", "out"]), "hf_eos/config.json must be an id or a list of ids; got '2'"),
    (("convert", ["hf_nan", "out"]), "layernorm_epsilon in config.json must be a finite number"),
    (("convert", ["hf_out", "out"]), "may only name files of its own directory"),
    (("convert", ["hf_numbers", "out"]), "says that a is in 3; it may only name files of its own"),
    (("convert", ["listed", "out"]), "listed/run.json must hold a JSON object; got list"),
    (("convert", ["billion", "out"]), "model.num_layers must be at most 1000; got 1000000000"),
    (("convert", ["truth", "out"]), "model.num_layers must be a whole number; got True"),
    (("convert", [CHATGLM2, "."]), "'.' is the directory you are in"),
    (("convert", [CHATGLM2, "text.txt/out"]), "'text.txt' is a file"),
    (("convert", [CHATGLM2, "hf_model"]), "holds a model already; --overwrite replaces it"),
    (("convert", [CHATGLM2, "hf_model", "--to", "orbax"]), "holds more than a model"),
    (("convert", ["hf_model", "hf_model"]), "'hf_model' is or holds 'hf_model'"),
    (("plan", [*TINY, "--topology", "v9:2x2"]), "v9"),
    (("plan", [*TINY, "--topology", "v5e"]), "v5e"),
    (("plan", [*TINY, "--tune_layers", "2"]), "--tune_layers needs --tune"),
    # What argparse refuses.
    (("train", TINY), "the following arguments are required: --workdir"),
    (("train", [*TINY, "--workdir", ""]), "argument --workdir: is empty"),
    (train("--resume_step", "two"), "argument --resume_step: invalid int value: 'two'"),
    (train("--workdirs", "x"), "unknown option --workdirs (did you mean '--workdir'?)"),
    (("generate", ["--checkpoint", "old", "a", "b c"]), "one argument too many: 'b c'"),
    (("generate", ["--checkpoint", "old", "caf\udce9"]), "not UTF-8: byte 0xe9 at 3"),
    (("generate", ["--checkpoint", "old", "a", "--candidates", "0"]), "must be at least 1; got 0"),
    (("convert", ["old", "new", "--to", "hugface"]), "invalid choice: 'hugface'"),
    (("plan", [*TINY, "--tune_layers", "0"]), "must be a whole number, at least 1; got '0'"),
    (("evaluate", ["--checkpoint", "old", "--tusk", "cloze"]), "did you mean '--task'?"),
    (("__main__", ["trian"]), "no command 'trian' (did you mean 'train'?)"),
    (("report", []), "the following arguments are required: --workdir"),
    (("report", ["--workdir", "none"]), "there is no workdir 'none'"),
    (("report", ["--workdir", "full"]), "the workdir 'full' has no metrics.jsonl, which"),
    (("report", ["--workdir", "old"]), "the workdir 'old' has no goodput.jsonl, which"),
    (("report", ["--workdir", "timeless"]), "goodput.jsonl' holds no line that glm_jax.train"),
    (("report", [*TIMED, "--picture", "a.doc"]), "--picture 'a.doc' cannot be written: Format"),
    (("report", [*TIMED, "--picture", "no/a.png"]), "--picture 'no/a.png' cannot be written: "),
    (("preview", [*TINY, "--num_examples", "0"]), "--num_examples must be at least 1; got 0"),
    (("preview", [*TINY, "--set", "data.source=none.txt"]), "no file matches"),
    (("cache", [*TINY, "--set", "data.source=none.txt"]), "no file matches"),
    (("cache", [*TINY, "--set", "data.store=full", "--force"]), "'full' is not a token store"),
]


def label(case):
    (name, arguments), _ = case
    shown = [word for word in arguments if word not in (*TINY, *RUN, "--set")]
    return f"{name} {' '.join(map(str, shown))}".replace(str(CONFIGS), "").replace(CHATGLM2, "M")


def run(name, arguments, monkeypatch):
    """The exit status of `python -m glm_jax.NAME ARGUMENTS`."""
    module = importlib.import_module(f"glm_jax.{name}")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(module.main)
    return ended.value.code


@pytest.mark.parametrize("case", BAD, ids=label)
def test_one_sentence_and_nothing_lost(case, here, monkeypatch, capfd):
    (name, arguments), said = case
    before = everything(here)
    status = run(name, arguments, monkeypatch)
    output, errors = capfd.readouterr()
    assert status == 2, errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1, errors
    assert said in errors
    assert not output
    assert everything(here) == before


def test_the_table_is_long_enough():
    assert len(BAD) >= 60
    assert len({json.dumps(command) for command, _ in BAD}) == len(BAD)
