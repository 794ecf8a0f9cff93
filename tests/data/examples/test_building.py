"""From files to a store: split by content, counted, named; nothing half written."""

import dataclasses
import json

import numpy as np
import pytest

from glm_jax.config import Config, DataConfig, ExamplesConfig, ModelConfig
from glm_jax.data.examples.building import build_store, settings, store_key
from glm_jax.data.examples.store import ExampleStore
from glm_jax.errors import UserError
from tests.tokenizers.golden_chat import PIECES, directory


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("chatglm3")
    return str(directory(path, PIECES, "tokenizer.model", glm_tokenizer={"kind": "chatglm3"}))


def config_of(source, tokenizer, **options):
    return Config(
        model=ModelConfig(vocab_size=512, position_encoding="rotary"),
        data=DataConfig(source=str(source), tokenizer=tokenizer, eval_fraction=0.25),
        examples=ExamplesConfig(format="auto", **options),
    )


def pair(number):
    return {"prompt": f"What is {number}?", "response": f"It is {number}."}


def write(path, records):
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_a_store_of_two_files(tmp_path, tokenizer, capsys):
    write(tmp_path / "a.jsonl", map(pair, range(20)))
    (tmp_path / "b.json").write_text(json.dumps(list(map(pair, range(20, 30)))))
    config = config_of(f"{tmp_path}/*.json*", tokenizer)
    build_store(config, tmp_path / "store")
    assert capsys.readouterr().err == "30 examples\n"
    store = ExampleStore.open(tmp_path / "store")
    sizes = {name: len(split) for name, split in store.splits.items()}
    assert sum(sizes.values()) == 30
    assert 1 <= sizes["eval"] <= 15
    assert store.description["settings"] == settings(config)
    places = [store.place(name, i) for name, size in sizes.items() for i in range(size)]
    assert sorted(places) == sorted(
        [f"{tmp_path}/a.jsonl line {n}" for n in range(1, 21)]
        + [f"{tmp_path}/b.json item {n}" for n in range(1, 11)]
    )
    # An example's split depends on what it says, not on what stands beside it.
    write(tmp_path / "a.jsonl", map(pair, range(29, -1, -1)))
    build_store(config_of(tmp_path / "a.jsonl", tokenizer), tmp_path / "other")
    other = ExampleStore.open(tmp_path / "other")

    def texts(split):
        return sorted(split[i].tokens.tolist() for i in range(len(split)))

    for name, split in store.splits.items():
        assert texts(split) == texts(other.splits[name])
    assert other.fingerprint != store.fingerprint  # the order is another


def test_examples_without_an_answer_after_the_cut(tmp_path, tokenizer, capsys):
    long = {"prompt": "x" * 100, "response": "yes"}
    file = write(tmp_path / "a.jsonl", [pair(1), long, pair(2), pair(3), long])
    limits = {"max_source_length": 30, "max_target_length": 30}
    build_store(config_of(file, tokenizer, **limits), tmp_path / "store")
    assert capsys.readouterr().err == (
        f"5 examples, 2 without an answer after the cut: first {file} line 2\n"
    )
    store = ExampleStore.open(tmp_path / "store")
    assert sum(len(split) for split in store.splits.values()) == 3
    assert all(split[0].learnt.any() for split in store.splits.values() if len(split))
    write(file, [long, long])
    with pytest.raises(UserError, match=r"would be learnt: 2 examples, 2 without .* line 1"):
        build_store(config_of(file, tokenizer, **limits), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "hi"}', "line 2: examples.format='auto' looks for"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "line 2: no message is the"),
        ('["hi"]', "line 2: must be a JSON object; got"),
    ],
)
def test_errors_name_file_and_line(tmp_path, tokenizer, line, message):
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(pair(1))}\n{line}\n")
    with pytest.raises(UserError) as caught:
        build_store(config_of(file, tokenizer), tmp_path / "store")
    assert str(caught.value).startswith(f"{file} {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_what_a_format_refuses_later_is_named_too(tmp_path, tokenizer):
    file = write(tmp_path / "a.jsonl", [pair(1), pair(2)])
    config = config_of(file, "bundled", loss_on="all")
    config = dataclasses.replace(config, model=ModelConfig())
    with pytest.raises(UserError, match=r"a\.jsonl line 1: loss_on='all' does not go with"):
        build_store(config, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_few_examples_and_none(tmp_path, tokenizer, capsys):
    file = write(tmp_path / "a.jsonl", [pair(1)])
    build_store(config_of(file, tokenizer), tmp_path / "store")
    assert "there is one example, which is used for training and for" in capsys.readouterr().err
    store = ExampleStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.splits["train"].tokens, store.splits["eval"].tokens)
    file.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"no examples in the 1 file.*; skipped 1 line: 1 not"):
        build_store(config_of(file, tokenizer), tmp_path / "none")


def test_the_key_changes_with_what_decides_a_store(tmp_path, tokenizer):
    file = write(tmp_path / "a.jsonl", [pair(1), pair(2)])
    config = config_of(file, tokenizer)
    keys = {store_key(config)}
    for change in ({"loss_on": "last"}, {"max_source_length": 9, "max_target_length": 9}):
        keys.add(store_key(config_of(file, tokenizer, **change)))
    bundled = config_of(file, "bundled")
    keys.add(store_key(bundled))
    keys.add(store_key(dataclasses.replace(bundled, model=ModelConfig())))
    assert len(keys) == 5
    # ChatGLM3 has no part A in any model.
    assert store_key(dataclasses.replace(config, model=ModelConfig())) in keys
    # How rows are made of a store, and where the files lie, leave it the same.
    assert store_key(config_of(file, tokenizer, packed=False)) in keys
    (tmp_path / "copied").mkdir()
    copy = write(tmp_path / "copied" / "b.jsonl", [pair(1), pair(2)])
    assert store_key(config_of(copy, tokenizer)) in keys
    assert store_key(config_of(write(copy, [pair(2)]), tokenizer)) not in keys
