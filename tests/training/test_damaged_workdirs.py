"""Every file of a workdir damaged in every way: a restart goes on, or says one sentence.

Never a traceback, never a checkpoint lost that was good. What a step computes does not matter here,
so that the loop has stand-ins for what is compiled.
"""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import pytest

from glm_jax.checkpoints.checksums import damage
from glm_jax.errors import UserError
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training import loop
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.loop import train
from glm_jax.training.run.rewind import write_skips
from glm_jax.training.watch import recording
from glm_jax.training.watch.goodput_log import History, read_log

MADE_AGAIN = ["metrics.jsonl", "goodput.jsonl", "samples.txt", "loss.png", "unigram.npz"]
WANTED = ["run.json", "skipped.json", "data.json"]
STEP_4 = ["manifest.json", "_CHECKPOINT_METADATA", "params", "optimizer", "data"]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]


WAYS = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": flipped,
    "binary": lambda content: bytes(range(256)) * (len(content) // 256 + 1),
    "list": lambda content: b'[1, "a", null]\n',
    "object": lambda content: b'{"step": "a", "files": [1], "model": 3, "metrics": {"x": []}}\n',
    "deep": lambda content: b"[" * 100_000 + b"\n",
    "directory": None,
}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    def compile_train_step(config, mesh):
        def step(state, batch):
            metrics = {name: jnp.float32(1.0) for name in ("loss", "grad_norm", "learning_rate")}
            return dataclasses.replace(state, step=state.step + 1), metrics

        return step

    class Evaluator:
        def __init__(self, *_):
            pass

        def __call__(self, params):
            return {"eval/loss": 1.0, "eval/unigram_loss": 2.0}

        def loss_of(self, params, batch):
            return 1.0

    def section(self, step, params):
        return f"step {step}\n  a text, filled\n"

    monkeypatch.setattr(loop, "compile_train_step", compile_train_step)
    monkeypatch.setattr(loop, "Evaluator", Evaluator)
    monkeypatch.setattr(recording, "evaluation_line", lambda step, _: f"step {step}: held out 1.0")
    monkeypatch.setattr(loop.Sampler, "section", section)


@pytest.fixture
def longer(config, change):
    config = change(config, "train.keep_checkpoints", 9)
    return change(change(config, "train.num_steps", 6), "optimizer.schedule", "constant")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "run"


@pytest.fixture
def workdir(made, longer, change, open_batches, tokenizer, tmp_path):
    """Of a run with checkpoints of step 2 and 4, which goes on to 6."""
    if not made.exists():
        assert train(change(longer, "train.num_steps", 4), made, open_batches, tokenizer) == 0
        write_skips(made, [(100, 101)])
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def spoil(path, way):
    content = path.read_bytes()
    if way == "directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(WAYS[way](content))


def restart(config, workdir, open_batches, tokenizer):
    """Its status; 2 with the sentence for what a user can mend."""
    try:
        return train(config, workdir, open_batches, tokenizer), ""
    except UserError as error:
        return 2, str(error)


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_what_can_be_made_again(way, longer, workdir, open_batches, tokenizer, caplog):
    for name in MADE_AGAIN:
        spoil(workdir / name, way)
    status, said = restart(longer, workdir, open_batches, tokenizer)
    if way == "directory":
        assert status == 2
        assert "must be a file; move the directory away" in said
        return
    assert status == 0, said
    assert [row["step"] for row in rows_of(workdir) if "loss" in row][-2:] == [5, 6]
    assert (workdir / "samples.txt").read_bytes().endswith(b"step 6\n  a text, filled\n")
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
    # What was not a torn line is kept, and said.
    kept = workdir / "damaged-1-metrics.jsonl"
    assert kept.exists() == ("not its rows" in caplog.text)
    assert kept.exists() == (way not in ("empty", "cut"))
    # This start is recorded, whatever is left of those before.
    history = History(read_log(workdir / "goodput.jsonl")[0])
    assert (history.status, history.wall) == (0, sum(history.nanoseconds.values()))


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_made_again(name, way, longer, workdir, open_batches, tokenizer):
    spoil(workdir / name, way)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    status, said = restart(longer, workdir, open_batches, tokenizer)
    assert status == 2
    assert name in said
    assert "\n" not in said
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}.keys() == before.keys()


@pytest.mark.parametrize("name", STEP_4)
@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_step(name, way, longer, workdir, caplog):
    step = workdir / "checkpoints" / "4"
    path = step / name
    if path.is_dir():
        path = max(path.rglob("d/*"), key=lambda file: file.stat().st_size)
    spoil(path, way)
    restored, _ = Checkpoints(step.parent, longer, make_mesh(longer.mesh)).restore()
    assert int(restored.step) == 2
    assert "checkpoint 4 cannot be read" in caplog.text
    assert sorted(path.name for path in step.parent.iterdir()) == ["2", "damaged-4"]
    assert damage(step.parent / "2") is None


@pytest.mark.parametrize(
    "content",
    [
        "[[5, 4]]",
        "[[4.5, 6]]",
        '[["4", 6]]',
        "[[true, 6]]",
        "[[1, 9007199254740993]]",
        "[[-1, 4]]",
        "[4, 6]",
        "NaN",
    ],
)
def test_spans_that_no_stream_has(content, longer, workdir, open_batches, tokenizer):
    (workdir / "skipped.json").write_text(content)
    status, said = restart(longer, workdir, open_batches, tokenizer)
    assert status == 2
    assert "must be a list of pairs such as [[400, 450]]" in said


def test_a_step_under_the_name_of_another(longer, workdir, open_batches, tokenizer):
    steps = workdir / "checkpoints"
    shutil.copytree(steps / "2", steps / "6")
    status, said = restart(longer, workdir, open_batches, tokenizer)
    assert status == 2
    assert f"{steps / '6'}' holds the checkpoint of step 2" in said
    shutil.rmtree(steps / "6")
    (steps / "6").write_text("")
    assert (
        "must be a checkpoint's directory" in restart(longer, workdir, open_batches, tokenizer)[1]
    )
    assert sorted(path.name for path in steps.iterdir()) == ["2", "4", "6"]


def test_names_that_are_no_steps(longer, workdir, open_batches, tokenizer):
    for name in ("007", "٧", "4.old", "9x"):
        (workdir / "checkpoints" / name).mkdir()
    assert restart(longer, workdir, open_batches, tokenizer) == (0, "")


@pytest.mark.parametrize("name", ["checkpoints", "rewound", "tensorboard", "wandb", "profile"])
def test_a_file_where_a_directory_is_to_be(name, longer, workdir, open_batches, tokenizer):
    if (workdir / name).exists():
        shutil.rmtree(workdir / name)
    (workdir / name).write_text("")
    status, said = restart(longer, workdir, open_batches, tokenizer)
    assert status == 2
    assert f"{workdir / name}' must be a directory" in said


def test_a_disk_that_does_not_give_the_log(
    longer, workdir, open_batches, tokenizer, monkeypatch, capsys
):
    real = recording.MetricsLog.__init__

    def fail(self, path, *others):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(recording.MetricsLog, "__init__", fail)
    assert restart(longer, workdir, open_batches, tokenizer)[0] == 3
    assert "metrics.jsonl' cannot be used: Permission denied" in capsys.readouterr().err
    monkeypatch.setattr(recording.MetricsLog, "__init__", real)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "read_record", lambda workdir: fail(None, workdir / "run.json"))
        assert restart(longer, workdir, open_batches, tokenizer)[0] == 3
    assert "run.json' cannot be used: Permission denied" in capsys.readouterr().err
    assert restart(longer, workdir, open_batches, tokenizer) == (0, "")
