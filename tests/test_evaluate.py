"""`python -m glm_jax.evaluate`, in this process, on a model that has learned nothing."""

import importlib.util
import json
import sys

import jax
import numpy as np
import pytest

from glm_jax import evaluate
from glm_jax.adapters.quantising import Quantize
from glm_jax.cli import model as cli_model
from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig, ObjectiveConfig, to_json
from glm_jax.config.files import read_run
from glm_jax.data.documents import SPLITS
from glm_jax.data.store import StoreWriter
from glm_jax.errors import UserError
from glm_jax.evaluation.registry import Request, about, pretrain
from glm_jax.generation import language_model
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.pipeline.batches import batches, source
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer

MODEL = ModelConfig(
    vocab_size=7168, num_layers=1, embed_dim=8, num_heads=2, max_positions=64, dropout_rate=0.0
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir without parameters, and the store of its corpus."""
    workdir = tmp_path_factory.mktemp("run")
    tokenizer = load_tokenizer("bundled")
    with StoreWriter(
        workdir / "store",
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description={},
    ) as writer:
        draws = np.random.default_rng(0)
        for split in SPLITS:
            writer.add(split, [draws.integers(300, 7000, 50) for _ in range(9)])
    data = DataConfig(store=str(workdir / "store"), sequence_length=64, batch_size=4)
    objective = ObjectiveConfig(span_rate=0.5, document_rate=0.5)
    (workdir / "run.json").write_text(to_json(Config(MODEL, data, objective=objective)))
    return workdir


@pytest.fixture(scope="module")
def lm():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(MODEL, create_params(MODEL, mesh, 0), load_tokenizer("bundled"))


@pytest.fixture(autouse=True)
def loaded(monkeypatch, lm):
    monkeypatch.setattr(language_model, "load", lambda path, mesh, adapter, quantize: lm)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it would raise


def config_of(workdir):
    return read_run(workdir / "run.json")[0]


def test_the_corpus_of_the_run(workdir, lm, tmp_path, capsys):
    out = tmp_path / "result.json"
    arguments = ["--checkpoint", str(workdir), "--output", str(out)]
    evaluate.main([*arguments, "--num_batches", "2"])
    result = json.loads(out.read_text())
    assert (result["checkpoint"], result["task"]) == (str(workdir), "glm_pretrain")
    metrics = result["metrics"]

    stream = batches(config_of(workdir), "eval")
    found = [next(stream) for _ in range(2)]
    stream.close()
    weights = [batch.loss_weights.sum() for batch in found]
    losses = [float(lm.loss(batch)) for batch in found]
    assert metrics["loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    assert metrics["targets"] == sum((batch.loss_weights > 0).sum() for batch in found)
    assert metrics["perplexity/span"] == pytest.approx(np.exp(metrics["loss/span"]))
    assert 0 <= metrics["accuracy/document"] < 0.1
    assert "loss/sentence" not in metrics
    shown = capsys.readouterr()
    assert "2 batches of rows of the split 'eval' of " in shown.err
    assert "losses in nats per target" in shown.err
    lines = dict(line.split() for line in shown.out.splitlines())
    assert float(lines["loss"]) == pytest.approx(metrics["loss"], rel=1e-5)
    assert list(lines) == list(metrics)


def test_data_that_has_changed_since_is_said(workdir, capsys):
    record = {
        "sources": {"": {"fingerprint": "other", "rate": 1.0, "made_from": {}}},
        "tokenizer": load_tokenizer("bundled").fingerprint,
        "changes": [],
    }
    arguments = ["--checkpoint", str(workdir), "--num_batches", "1"]
    (workdir / "data.json").write_text(json.dumps(record))
    try:
        evaluate.main(arguments)
        assert "has changed since: the tokens of the store" in capsys.readouterr().err
        # On purpose.
        evaluate.main([*arguments, "--set", f"data.store={workdir / 'store'}"])
        assert "has changed" not in capsys.readouterr().err
    finally:
        (workdir / "data.json").unlink()


def test_each_row_once_by_default(workdir, lm):
    config = config_of(workdir)
    metrics = pretrain(lm, Request(config))
    builder = source(config, "eval").builders[0]
    count = np.arange(builder.num_rows)
    whole, _ = builder.build(np.zeros_like(count), count)
    assert metrics["targets"] == (whole.loss_weights > 0).sum()
    assert metrics["loss"] == pytest.approx(float(lm.loss(whole)), rel=1e-5)


def test_the_config_can_be_changed(workdir, capsys):
    changes = ["--set", "objective.span_rate=0", "--set", "objective.document_rate=1"]
    evaluate.main(
        ["--checkpoint", str(workdir), "--split", "train", "--num_batches", "1", *changes]
    )
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert "loss/document" in lines
    assert "loss/span" not in lines


def test_a_damaged_record_of_the_run_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"model": ')
    with pytest.raises(UserError, match=r"run\.json is not the record of a run"):
        evaluate.main(["--checkpoint", str(tmp_path)])


def test_what_the_numbers_are_of(workdir):
    request = Request(config_of(workdir))
    assert about("glm_pretrain", request).startswith("each row of the split 'eval' of /")
    assert about("cloze", request).startswith("which of four words")
    assert about("of_somebody_else", request) == ""


def test_a_report_is_a_directory(workdir, tmp_path, capsys):
    out = tmp_path / "report"
    task = ["--task", "infilling_report", "--num_examples", "4"]
    arguments = ["--checkpoint", str(workdir), *task, "--output", str(out)]
    evaluate.main(arguments)
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(lines["loss/span"]) == pytest.approx(np.log(7168), abs=0.1)
    found = json.loads((out / "report.json").read_text())
    assert found["settings"]["texts"] == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file' is a file; a report is written as a directory"):
        evaluate.main([*arguments[:-1], str(tmp_path / "file")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "glm_pretrian"], r"unknown task 'glm_pretrian' \(did you mean 'glm_pretrain'"),
        (["--num_batches", "0"], "--num_batches must be at least 1; got 0"),
        (["--num_examples", "-1"], "--num_examples must be at least 1; got -1"),
        (["--output", "/nowhere/at/all.json"], "--output: no directory '/nowhere/at'"),
        (["--task", "cloze", "--num_batches", "2"], "for the task 'cloze', which takes --num_exam"),
        (["--num_examples", "2"], "'glm_pretrain', which takes --split and --num_batches"),
        (["--split", "test"], r"split must be one of \['train', 'eval'\]; got 'test'"),
        (["--task_module", "not_there"], "--task_module: no module 'not_there'"),
        (["--set", "data.sorce=x"], "unknown config name 'data.sorce'"),
    ],
)
def test_mistakes(workdir, monkeypatch, arguments, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        evaluate.main(["--checkpoint", str(workdir), *arguments])


def test_a_model_is_quantised_for_the_numbers(workdir, lm, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        language_model,
        "load",
        lambda path, mesh, adapter, quantize: asked.append((path, quantize)) or lm,
    )
    arguments = ["--num_batches", "1", "--checkpoint", str(workdir)]
    evaluate.main(arguments)
    evaluate.main([*arguments, "--quantize", "int4", "--group_size", "16", "--quantize_embedding"])
    assert asked == [(workdir, None), (workdir, Quantize(4, 16, embedding=True))]
    with pytest.raises(UserError, match="--scale_search goes with --quantize"):
        evaluate.main([*arguments, "--scale_search"])


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no directory"):
        evaluate.main(["--checkpoint", str(tmp_path / "none")])


@pytest.fixture
def task(tmp_path):
    """A directory with one task of two examples."""
    spec = 'kind = "choice"\ndata = "d.jsonl"\nprompt = "{text} [MASK]"\nchoices = ["a", "the"]'
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "words.toml").write_text(spec)
    lines = [{"text": "God said", "answer": "the"}, {"text": "And he", "answer": "a"}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "tasks" / "d.jsonl").write_text(text)
    return tmp_path / "tasks"


def test_a_directory_of_tasks_is_one_table(workdir, task, tmp_path, capsys):
    arguments = ["--checkpoint", str(workdir), "--task", str(task)]
    assert evaluate.main([*arguments, "--output", str(tmp_path / "a.json")]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["task", "examples", "metric", "value", "standard", "error"]
    assert first.split()[:3] == ["words", "2", "accuracy"]
    assert second.split()[2] == "accuracy_per_token"
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["checkpoint"] == str(workdir)
    assert len(found["tasks"][0]["examples"]) == 2
    evaluate.main([*arguments, "--num_examples", "1", "--output", str(tmp_path / "a.md")])
    assert "| words | 1 | accuracy | " in (tmp_path / "a.md").read_text()


def test_two_checkpoints_are_compared(workdir, task, tmp_path, monkeypatch, capsys):
    asked = []

    def load(path, mesh, adapter, quantize):
        asked.append((str(path), adapter, quantize))
        seed = len(asked)
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        return LanguageModel(MODEL, create_params(MODEL, mesh, seed), load_tokenizer("bundled"))

    monkeypatch.setattr(language_model, "load", load)
    arguments = ["--checkpoint", str(workdir), "--task", str(task / "words.toml"), "--quantize"]
    arguments += ["int8", "--compare"]
    evaluate.main([*arguments, "bundled", "--output", str(tmp_path / "b.json")])
    (other, this) = asked
    assert other == (str(cli_model("bundled")), None, None)
    assert this == (str(workdir), None, Quantize(8))
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split()[3:6] == ["baseline", "checkpoint", "difference"]
    assert f"baseline: bundled; checkpoint: {workdir}\n" in shown.err
    assert len(json.loads((tmp_path / "b.json").read_text())["differences"]) == 2
    # An earlier result is read, and no other model is loaded.
    evaluate.main([*arguments, str(tmp_path / "b.json")])
    assert len(asked) == 3
    with pytest.raises(UserError, match="the task 'words' has 2 and 1"):
        evaluate.main([*arguments, str(tmp_path / "b.json"), "--num_examples", "1"])


@pytest.mark.parametrize(
    "option",
    [["--split", "x"], ["--num_batches", "1"], ["--task_module", "x"], ["--set", "data.source=x"]],
)
def test_what_is_not_for_tasks_in_files(workdir, task, option):
    with pytest.raises(UserError, match=f"{option[0]} is not for tasks in files; .*tasks' is one"):
        evaluate.main(["--checkpoint", str(workdir), "--task", str(task), *option])


def test_registered_tasks_are_not_compared_but_written_as_a_table(workdir, tmp_path):
    arguments = ["--checkpoint", str(workdir), "--num_batches", "1"]
    with pytest.raises(UserError, match="--compare is for tasks in files, --task DIRECTORY"):
        evaluate.main([*arguments, "--compare", "bundled"])
    evaluate.main([*arguments, "--output", str(tmp_path / "a.md")])
    assert "| metric | value |\n| --- | --- |\n| loss | " in (tmp_path / "a.md").read_text()
