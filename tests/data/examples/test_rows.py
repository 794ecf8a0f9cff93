"""Rows of examples: segments side by side, cut and counted, the same on any hosts."""

import numpy as np
import pytest

from glm_jax.batch import ANSWER
from glm_jax.data.examples.example import blank_example, causal_example, row_of
from glm_jax.data.examples.rows import ExampleRowBuilder, cut_of
from glm_jax.data.examples.store import ExampleStore
from glm_jax.data.sequence import OneSource
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from tests.data.examples.test_store import written

CAUSAL = causal_example([10, 11, 12, 13], [False, False, True, True])
BLANK = blank_example([14, 2, 4, 15, 5], [False, False, False, True, True], prefix=2, blank=1)


def opened(tmp_path, examples):
    lines = range(1, len(examples) + 1)
    return ExampleStore.open(written(tmp_path / "store", examples, lines=lines))


def row(batch, index=0):
    return {name: value[index].tolist() for name, value in batch.to_dict().items()}


def test_a_row_of_two_examples(tmp_path):
    builder = ExampleRowBuilder("train", opened(tmp_path, [CAUSAL, BLANK]), 8, True, seed=0)
    assert builder.num_rows == 1
    batch, counts = builder.build(np.array([0, 0]), np.array([0, 1]))
    assert row(batch) == {  # the longer one comes first
        "tokens": [14, 2, 4, 15, 10, 11, 12, 0],
        "targets": [0, 0, 15, 5, 0, 12, 13, 0],
        "loss_weights": [0, 0, 1, 1, 0, 1, 1, 0],
        "positions": [0, 1, 1, 1, 0, 1, 2, 0],
        "block_positions": [0, 0, 1, 2, 0, 0, 0, 0],
        "attend_start": [0, 0, 0, 0, 4, 4, 4, 0],
        "attend_end": [2, 2, 3, 4, 5, 6, 7, 0],
        "objective": [0, 0, ANSWER, ANSWER, 0, ANSWER, ANSWER, 0],
    }
    empty = row(batch, 1)
    assert not any(empty["attend_end"] + empty["loss_weights"] + empty["tokens"])
    assert {name: value for name, value in counts.items() if value} == {
        "rows": 2,
        "places_used": 7,
        "source_tokens": 7,
        "targets": 4,
        "examples": 2,
    }
    apart = ExampleRowBuilder("train", builder.store, 8, packed=False, seed=0)
    assert apart.num_rows == 2
    assert row(apart.build([0], [1])[0])["tokens"] == [14, 2, 4, 15, 0, 0, 0, 0]


def test_what_a_row_cuts_is_counted_and_named(tmp_path):
    late = causal_example(range(4, 12), [False] * 7 + [True])
    long = causal_example(range(4, 12), [False, False] + [True] * 6)
    builder = ExampleRowBuilder("train", opened(tmp_path, [CAUSAL, late, long]), 4, True, seed=0)
    cut = cut_of(builder.store.splits["train"], 4)
    assert (cut.kept.tolist(), cut.cut, cut.empty.tolist()) == ([0, 2], 1, [1])
    assert builder.cuts
    assert builder.summary == (
        "train: 3 examples, 1 cut to the row, 1 without an answer after the cut: "
        "first a.jsonl line 2"
    )
    batch, _ = builder.build([0, 0], [0, 1])
    assert sorted(map(tuple, batch.tokens.tolist())) == [(4, 5, 6, 7), (10, 11, 12, 0)]
    assert batch.attend_end.max() == 4
    whole = ExampleRowBuilder("train", builder.store, 16, True, seed=0)
    assert (whole.cuts, whole.summary) == (False, "train: 3 examples")


def test_part_a_longer_than_the_row_is_left_out(tmp_path):
    wide = blank_example([9] * 6 + [2, 4, 15, 5], [False] * 8 + [True] * 2, prefix=7, blank=6)
    builder = ExampleRowBuilder("train", opened(tmp_path, [CAUSAL, wide]), 7, True, seed=0)
    assert (builder.num_rows, builder.build([0], [0])[1]["examples"]) == (1, 1)


def test_nothing_to_learn_is_refused(tmp_path):
    late = causal_example(range(4, 12), [False] * 7 + [True])
    store = opened(tmp_path, [late, late])
    with pytest.raises(UserError, match=r"nothing is learnt from .* 2 without .*sequence_length=4"):
        ExampleRowBuilder("train", store, 4, True, seed=0)


def test_streams_are_pure_functions_of_their_index(tmp_path):
    drawn = np.random.default_rng(0)
    examples = [
        causal_example(drawn.integers(8, 20, size), [True] * size)
        for size in drawn.integers(3, 12, 40)
    ]
    builder = ExampleRowBuilder("train", opened(tmp_path, examples), 16, True, seed=3)

    def stream(shard=0, shards=1):
        return RowStream(OneSource(builder), 4, shard, shards)

    whole = stream()
    ahead = [next(whole).to_dict() for _ in range(9)]
    halves = [stream(shard, 2) for shard in (0, 1)]
    for batch in ahead:
        parts = [next(half).to_dict() for half in halves]
        for name, value in batch.items():
            np.testing.assert_array_equal(value, np.concatenate([one[name] for one in parts]))
    later = stream()
    later.set_state(b"7")
    np.testing.assert_array_equal(next(later).tokens, ahead[7]["tokens"])
    # Each epoch has each row once, in an order of its own.
    epochs = np.concatenate([one["tokens"] for one in ahead])[: 2 * builder.num_rows]
    first, second = np.split(epochs, 2)
    assert sorted(first.tolist()) == sorted(second.tolist())
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("length", [8, 4, 3])
@pytest.mark.parametrize("example", [CAUSAL, BLANK], ids=["causal", "blank"])
def test_a_row_of_one_example_is_the_one_that_the_builder_makes(tmp_path, example, length):
    store = opened(tmp_path, [example])
    batch, _ = ExampleRowBuilder("train", store, length, False, seed=0).build(
        np.array([0]), np.array([0])
    )
    made = row_of(example, length, store.special.pad)
    assert {name: value.tolist() for name, value in made.items()} == row(batch)


def test_the_candidates_of_a_line_share_a_row_or_are_left_out_together(tmp_path):
    """Lines of 3 + 4, 3 + 3 and 4 + 4 slots, in rows of 7."""
    lines, examples = [1, 1, 2, 2, 5, 5], [CAUSAL, BLANK, CAUSAL, CAUSAL, BLANK, BLANK]
    store = ExampleStore.open(written(tmp_path / "store", examples, lines=lines))
    builder = ExampleRowBuilder("train", store, 7, True, seed=0, sharing="candidates")
    assert builder.num_rows == 2
    assert builder.summary == (
        "train: 6 examples, 2 whose candidates do not fit a row: first a.jsonl line 5"
    )
    batch, counts = builder.build(np.array([0, 0]), np.array([0, 1]))
    assert row(batch)["attend_start"] == [0, 0, 0, 3, 3, 3, 3]
    assert row(batch)["tokens"] == [10, 11, 12, 14, 2, 4, 15]
    assert row(batch, 1)["attend_start"] == [0, 0, 0, 3, 3, 3, 0]
    assert counts["examples"] == 4
    with pytest.raises(UserError, match=r"nothing is learnt from the split 'train'"):
        ExampleRowBuilder("train", store, 5, True, seed=0, sharing="candidates")
