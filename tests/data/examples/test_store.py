"""An example store: written and read back, damaged, copied, and known by its content."""

import dataclasses
import json

import numpy as np
import pytest

from glm_jax.data.examples import store as stores
from glm_jax.data.examples.example import FIELDS, blank_example, causal_example
from glm_jax.data.examples.store import INDEX, ExampleStore, ExampleWriter
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=1, gmask=2, smask=3, start=4, end=5, cls=6, eos=7, pad=0)
EXAMPLES = [
    causal_example([10, 11, 12], [False, True, True]),
    blank_example([13, 2, 4, 14, 5], [False, False, False, True, True], prefix=2, blank=1),
]


def written(directory, examples=EXAMPLES, vocab_size=20, lines=(1, 7), **described):
    description = {"files": [{"name": "a.jsonl"}], **described}
    with ExampleWriter(
        directory, vocab_size=vocab_size, special=SPECIAL, description=description
    ) as writer:
        for example, line in zip(examples, lines, strict=True):
            writer.add("train", [example], [(0, line)])
        writer.add("eval", examples[:1], [(0, 9)])
    return directory


@pytest.mark.parametrize("vocab_size", [20, 70_000])
def test_what_is_written_is_read(tmp_path, vocab_size):
    store = ExampleStore.open(written(tmp_path / "store", vocab_size=vocab_size))
    assert (store.vocab_size, store.special) == (vocab_size, SPECIAL)
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 2, "eval": 1}
    for index, example in enumerate(EXAMPLES):
        found = store.splits["train"][index]
        assert found.prefix == example.prefix
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found, name), getattr(example, name))
    assert store.place("train", 1) == "a.jsonl line 7"
    assert store.splits["train"].tokens.dtype == (np.uint16 if vocab_size == 20 else np.int32)
    with pytest.raises(IndexError):
        store.splits["train"][2]


def test_margins_are_there_where_pairs_have_them(tmp_path):
    pair = [
        dataclasses.replace(EXAMPLES[0], margin=0.5),
        dataclasses.replace(EXAMPLES[1], margin=0),
    ]
    store = ExampleStore.open(written(tmp_path / "store", pair))
    assert store.splits["train"].margins.tolist() == [0.5, 0.0]
    assert store.splits["train"].margins.dtype == np.float32
    assert [store.splits["train"][index].margin for index in (0, 1)] == [0.5, 0.0]
    without = ExampleStore.open(written(tmp_path / "without"))
    assert without.splits["train"].margins is None
    assert without.splits["train"][0].margin is None
    assert store.fingerprint != without.fingerprint
    other = [dataclasses.replace(pair[0], margin=0.25), pair[1]]
    assert ExampleStore.open(written(tmp_path / "other", other)).fingerprint != store.fingerprint
    with pytest.raises(ValueError, match="1 of 2 examples have a margin"):
        written(tmp_path / "some", [pair[0], EXAMPLES[1]])
    (tmp_path / "store" / "train.margins.npy").unlink()
    with pytest.raises(UserError, match="store of examples"):
        ExampleStore.open(tmp_path / "store")


def test_the_fingerprint_is_of_what_rows_depend_on(tmp_path):
    def of(name, *arguments, **options):
        return ExampleStore.open(written(tmp_path / name, *arguments, **options)).fingerprint

    first = of("a")
    # Other lines, names and places make the same rows.
    assert of("b", lines=(3, 4), source="elsewhere/*.jsonl") == first
    assert of("c", vocab_size=21) != first
    assert of("d", tokenizer_fingerprint="another") != first
    learns_more = causal_example([10, 11, 12], [True, True, True])
    assert of("e", [causal_example([10, 11, 12], [0, 0, 1]), EXAMPLES[1]]) != first
    assert of("f", [learns_more, EXAMPLES[1]]) == first  # the first id is never a target


@pytest.mark.parametrize("name", [f"train.{field}" for field in FIELDS] + ["train.prefix.npy"])
def test_a_damaged_file_is_named(tmp_path, name):
    directory = written(tmp_path / "store")
    content = bytearray((directory / name).read_bytes())
    content[-1] ^= 1
    (directory / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"{name}.*; remove it, and it is built anew"):
        ExampleStore.open(directory)


def test_missing_and_other_files(tmp_path):
    with pytest.raises(UserError, match=r"no store of examples at .*examples\.json is missing"):
        ExampleStore.open(tmp_path)
    directory = written(tmp_path / "store")
    (directory / "train.learnt").unlink()
    with pytest.raises(UserError, match="is damaged"):
        ExampleStore.open(directory)
    directory = written(tmp_path / "other")
    index = json.loads((directory / INDEX).read_text())
    (directory / INDEX).write_text(json.dumps(index | {"format": 0}))
    with pytest.raises(UserError, match="of another version: its format is 0"):
        ExampleStore.open(directory)
    (directory / INDEX).write_text(json.dumps(index | {"vocab_size": 19}))
    with pytest.raises(UserError, match=r"examples\.json is not what was written"):
        ExampleStore.open(directory)


def test_whole_or_not_at_all(tmp_path):
    with pytest.raises(UserError, match="exists already"):
        written(written(tmp_path / "store"))
    writer = ExampleWriter(tmp_path / "half", vocab_size=20, special=SPECIAL, description={})
    writer.add("train", EXAMPLES, [(0, 1), (0, 2)])
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.10; got"):
        written(tmp_path / "half", vocab_size=11)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_writer_counts_and_notes(tmp_path):
    with ExampleWriter(
        tmp_path / "store", vocab_size=20, special=SPECIAL, description={"a": 1}
    ) as writer:
        writer.add("train", EXAMPLES, [(0, 1), (0, 2)])
        writer.add("eval", [], [])
        assert [writer.num_examples(name) for name in ("train", "eval", "x")] == [2, 0, 0]
        writer.note(b=2)
        with pytest.raises(ValueError, match="as many origins"):
            writer.add("train", EXAMPLES, [])
        with pytest.raises(ValueError, match="no split's name"):
            writer.add("../x", [], [])
    store = ExampleStore.open(tmp_path / "store")
    assert store.description == {"a": 1, "b": 2}
    assert len(store.splits["eval"]) == 0
    assert stores.FORMAT == 1
