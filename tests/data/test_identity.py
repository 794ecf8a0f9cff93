"""What differs between two states of a run's data, and between a config and its store."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from glm_jax.config import DataConfig
from glm_jax.data.building import build_store
from glm_jax.data.identity import difference, disagreement, file_differences, identity
from glm_jax.data.store import TokenStore
from glm_jax.special_tokens import SpecialTokens


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for name in ("x", "y"):
        (tmp_path / "a" / f"{name}.txt").write_text(
            "\n\n".join(f"text {number} of {name}" for number in range(40))
        )
    return DataConfig(source="a/*.txt", eval_fraction=0.2)


def built(data, directory="store"):
    shutil.rmtree(directory, ignore_errors=True)
    build_store(data, directory, progress=False)
    return TokenStore.open(directory)


def state(data):
    return identity({"": (1.0, built(data))})


def test_the_same_text_elsewhere_is_the_same(data):
    before = state(data)
    shutil.copytree("a", "b")
    after = state(dataclasses.replace(data, source="b/*.txt"))
    assert before != after
    assert difference(before, after) is None
    assert difference(json.loads(json.dumps(before)), after) is None


def test_what_differs_is_named(data, tmp_path):
    before = state(data)
    file = tmp_path / "a" / "x.txt"
    content = file.read_text()
    file.write_text(content.replace("text 7", "text 9"))
    assert difference(before, state(data)) == "file 'a/x.txt' has changed"
    file.write_text(content)
    assert difference(before, state(data)) is None
    (tmp_path / "a" / "z.txt").write_text("more")
    assert difference(before, state(data)) == "file 'a/z.txt' is new"
    (tmp_path / "a" / "z.txt").unlink()
    file.unlink()
    assert difference(before, state(data)) == "file 'a/x.txt' is gone"
    file.write_text(content)
    other = dataclasses.replace(data, eval_fraction=0.4)
    assert difference(before, state(other)) == "data.eval_fraction was 0.2, is 0.4"


def test_sources_and_rates_of_a_mixture():
    def of(fingerprint, rate=1.0, **made_from):
        return {"fingerprint": fingerprint, "rate": rate, "made_from": made_from}

    old = {"a": of("1"), "b": of("2", tokenizer_fingerprint="x")}
    assert difference(old, dict(old)) is None
    assert difference(old, {"a": of("1")}) == "the source 'b' is gone"
    assert difference({"a": of("1")}, old) == "the source 'b' is new"
    assert difference(old, old | {"a": of("1", 2.0)}) == "the rate of 'a' was 1.0, is 2.0"
    assert difference(old, old | {"a": of("3")}) == "'a': the tokens of the store have changed"
    other = of("4", tokenizer_fingerprint="y", tokenizer="mine")
    assert difference(old, old | {"b": other}) == (
        "'b': the tokenizer (data.tokenizer='mine') is another"
    )


def test_files_are_told_apart_by_content():
    def files(**hashes):
        return [{"name": f"d/{name}", "sha256": digest} for name, digest in hashes.items()]

    assert file_differences(files(a="1", b="2"), files(c="1", d="2")) == []
    assert file_differences(files(a="1", b="2"), files(a="2", b="1")) == [
        "the files come in another order, or another number of times"
    ]
    many = files(**{f"f{number}": str(number) for number in range(5)})
    assert file_differences([], many) == [
        "file 'd/f0' is new",
        "file 'd/f1' is new",
        "file 'd/f2' is new",
        "and 2 files more",
    ]


def test_a_store_and_the_config_that_made_it(data):
    store = built(data)
    assert disagreement(store, data) is None
    shutil.copytree("a", "b")
    moved = dataclasses.replace(data, source="b/*.txt")
    assert disagreement(store, moved) is None
    # Neither the default source nor the text that is not here says anything.
    assert disagreement(store, DataConfig(eval_fraction=0.2)) is None
    shutil.rmtree("a")
    assert disagreement(store, data) is None
    # A plain text has no field.
    assert disagreement(store, dataclasses.replace(moved, text_field="body")) is None


def test_a_store_and_another_config(data, tmp_path):
    store = built(data)
    fraction = dataclasses.replace(data, eval_fraction=0.3)
    assert disagreement(store, fraction) == "data.eval_fraction=0.2, not 0.3"
    nowhere = dataclasses.replace(data, source="none/*.txt")
    assert disagreement(store, nowhere).startswith("data.source='a/*.txt', not 'none/*.txt' (no fi")
    task = dataclasses.replace(data, source="task:x")
    assert disagreement(store, task) == "data.source='a/*.txt', not 'task:x'"
    (tmp_path / "a" / "y.txt").write_text("other")
    assert disagreement(store, data) == (
        "other text than data.source='a/*.txt': file 'a/y.txt' has changed"
    )


def test_a_store_of_a_field(data, tmp_path):
    (tmp_path / "f.jsonl").write_text('{"text": "one", "body": "two"}\n')
    data = DataConfig(source="f.jsonl")
    store = built(data)
    assert disagreement(store, data) is None
    other = dataclasses.replace(data, text_field="body")
    assert disagreement(store, other) == "data.text_field='text', not 'body'"


def test_a_store_in_memory_has_no_identity():
    special = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=0)
    store = TokenStore(100, special, np.zeros(100, bool), {}, {})
    assert identity({"": (1.0, store)}) == {}
    assert disagreement(store, DataConfig(source="none.txt")) is None
