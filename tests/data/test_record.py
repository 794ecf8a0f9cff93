"""data.json: what a run trains on, refused where it has changed, and what was accepted."""

import dataclasses
import json

import pytest

from glm_jax.data.record import (
    change_since,
    check_checkpoint,
    check_data,
    check_kept,
    keep_tokenizer,
    record_data,
)
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer, tokenizer_file
from glm_jax.training.loop import train

A = {"": {"fingerprint": "a", "rate": 1.0, "made_from": {"eval_fraction": 0.1}}}
B = {"": {"fingerprint": "b", "rate": 1.0, "made_from": {"eval_fraction": 0.2}}}


@pytest.fixture
def other_tokenizer(tmp_path):
    path = tmp_path / "other.model"
    # The same message with an empty field 3 (normaliser options) behind it.
    path.write_bytes(tokenizer_file("bundled").read_bytes() + b"\x1a\x00")
    return load_tokenizer(path)


def test_the_same_data_goes_on(tmp_path, tokenizer):
    assert check_data(tmp_path, A, tokenizer, False) is None
    record_data(tmp_path, A, tokenizer, 0, None)
    content = (tmp_path / "data.json").read_text()
    moved = {"": A[""] | {"made_from": {"source": "elsewhere"}}}
    assert check_data(tmp_path, moved, tokenizer, False) is None
    record_data(tmp_path, moved, tokenizer, 4, None)
    assert (tmp_path / "data.json").read_text() == content


def test_other_data_is_refused_or_accepted_and_recorded(tmp_path, tokenizer):
    record_data(tmp_path, A, tokenizer, 0, None)
    with pytest.raises(UserError, match=r"has changed: data\.eval_fraction was 0\.1, is 0\.2; "):
        check_data(tmp_path, B, tokenizer, False)
    change = check_data(tmp_path, B, tokenizer, True)
    record_data(tmp_path, B, tokenizer, 4, change)
    record = json.loads((tmp_path / "data.json").read_text())
    assert record["sources"] == B
    assert record["changes"] == [
        {
            "after_step": 4,
            "what": "data.eval_fraction was 0.1, is 0.2",
            "fingerprints": {"": "a"},
        }
    ]
    assert check_data(tmp_path, B, tokenizer, False) is None


def test_another_tokenizer_is_other_data(tmp_path, tokenizer, other_tokenizer):
    record_data(tmp_path, A, tokenizer, 0, None)
    with pytest.raises(UserError, match=r"has changed: data\.tokenizer is another"):
        check_data(tmp_path, A, other_tokenizer, False)
    assert check_data(tmp_path, A, other_tokenizer, True) == "data.tokenizer is another"


def test_a_run_of_an_older_version_goes_on_with_a_warning(tmp_path, other_tokenizer, capsys):
    (tmp_path / "run.json").write_text("{}")
    keep_tokenizer(tmp_path, load_tokenizer())
    assert check_data(tmp_path, A, load_tokenizer(), False) is None
    assert capsys.readouterr().err.startswith("warning: ")
    # Its own tokenizer is what it was trained with.
    with pytest.raises(UserError, match="not the tokenizer that the workdir holds"):
        check_data(tmp_path, A, other_tokenizer, False)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sources": {"": 3}, "changes": []}'])
def test_a_record_that_is_something_else(tmp_path, tokenizer, content):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UserError, match=r"data\.json' is not the record of a run's data"):
        check_data(tmp_path, A, tokenizer, False)


def test_a_checkpoint_of_other_data(tmp_path, tokenizer):
    record_data(tmp_path, B, tokenizer, 0, None)
    for saved in (None, {}, {"": "b"}):
        check_checkpoint(tmp_path, saved, B, False)
    with pytest.raises(UserError, match="was trained on other data"):
        check_checkpoint(tmp_path, {"": "a"}, B, False)
    check_checkpoint(tmp_path, {"": "a"}, B, True)
    record_data(tmp_path, A, tokenizer, 0, "something")
    check_checkpoint(tmp_path, {"": "b"}, A, False)


def test_a_tokenizer_that_was_replaced_in_the_workdir(tmp_path, other_tokenizer):
    bundled = load_tokenizer()
    check_kept(tmp_path, bundled)
    record_data(tmp_path, A, bundled, 0, None)
    check_kept(tmp_path, bundled)
    with pytest.raises(UserError, match="is not the one that the run was trained with"):
        check_kept(tmp_path, other_tokenizer)
    (tmp_path / "data.json").write_text("{")
    check_kept(tmp_path, other_tokenizer)


def test_change_since(tmp_path, tokenizer):
    assert change_since(tmp_path, A) is None
    record_data(tmp_path, A, tokenizer, 0, None)
    assert change_since(tmp_path, A) is None
    assert change_since(tmp_path, B) == "data.eval_fraction was 0.1, is 0.2"


def test_the_kept_tokenizer_is_that_of_the_run(tmp_path, other_tokenizer):
    keep_tokenizer(tmp_path, load_tokenizer())
    before = (tmp_path / "tokenizer.model").stat()
    keep_tokenizer(tmp_path, load_tokenizer())
    assert (tmp_path / "tokenizer.model").stat().st_mtime_ns == before.st_mtime_ns
    keep_tokenizer(tmp_path, other_tokenizer)
    assert load_tokenizer(tmp_path).fingerprint == other_tokenizer.fingerprint
    # One of another kind does not stay beside it: it would be read first.
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words) + "\n")
    bert = load_tokenizer(tmp_path / "bert")
    keep_tokenizer(tmp_path, bert)
    assert load_tokenizer(tmp_path).fingerprint == bert.fingerprint


def test_a_run_whose_data_changes(tmp_path, config, open_batches, tokenizer, capsys):
    data = {"now": A}

    def batches(*share):
        stream = open_batches(*share)
        stream.data = data["now"]
        return stream

    def steps(number, **settings):
        settings = {"num_steps": number} | settings
        optimizer = dataclasses.replace(config.optimizer, decay_steps=6)
        changed = dataclasses.replace(config.train, **settings)
        return dataclasses.replace(config, optimizer=optimizer, train=changed)

    run = tmp_path / "run"
    assert train(steps(2), run, batches, tokenizer) == 0
    data["now"] = B
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"data of the workdir .* has changed"):
        train(steps(4), run, batches, tokenizer)
    assert {path: path.read_bytes() for path in before} == before
    # The record is lost, but the checkpoint has its own.
    (run / "data.json").rename(tmp_path / "data.json")
    with pytest.raises(UserError, match="was trained on other data"):
        train(steps(4), run, batches, tokenizer)
    assert not (run / "data.json").exists()
    (tmp_path / "data.json").rename(run / "data.json")
    capsys.readouterr()
    assert train(steps(4, accept_data_change=True), run, batches, tokenizer) == 0
    assert "with other data: data.eval_fraction was 0.1, is 0.2" in capsys.readouterr().out
    assert train(steps(6), run, batches, tokenizer) == 0
    (change,) = json.loads((run / "data.json").read_text())["changes"]
    assert change["after_step"] == 2
