"""The store of a reference's log-probabilities: parts, a whole, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from glm_jax.batch import ScoredBatch
from glm_jax.data.examples.example import causal_example
from glm_jax.data.examples.reference import (
    INDEX,
    MadeOf,
    ReferenceStore,
    ReferenceWriter,
    ScoredRowBuilder,
    is_there,
)
from glm_jax.data.examples.rows import ExampleRowBuilder
from glm_jax.data.examples.store import ExampleStore, ExampleWriter
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=1, gmask=2, smask=3, start=4, end=5, cls=6, eos=7, pad=0)
MADE_OF = MadeOf(model="abc", examples="123", sequence_length=8, dtype="float32")


def write(directory, made_of=MADE_OF, size=4):
    writer = ReferenceWriter(directory, made_of)
    writer.add("train", 0, 1, np.array([1, 0]), np.array([-2.0, -1.0], np.float32))
    writer.add("train", 1, 3, np.array([3]), np.array([-4.0], np.float32))
    return writer


def test_parts_are_gone_on_with_and_put_together(tmp_path):
    place = tmp_path / "a"
    write(place)
    assert not is_there(place)
    # What a killed process had done; of another model nothing is.
    again = ReferenceWriter(place, MADE_OF)
    assert (again.rows_done("train"), again.rows_done("eval")) == (3, 0)
    other = dataclasses.replace(MADE_OF, model="abd")
    assert ReferenceWriter(place, other).rows_done("train") == 0
    again.close({"train": 4, "eval": 2})
    found = ReferenceStore.open(place)
    assert found.made_of == MADE_OF
    assert found.log_probs["train"].tolist() == [-1, -2, 0, -4]
    assert found.log_probs["eval"].tolist() == [0, 0]
    assert ReferenceWriter(place, MADE_OF).rows_done("train") == 0


def test_another_model_or_other_examples_are_refused_by_name(tmp_path):
    write(tmp_path / "a").close({"train": 4})
    store = ReferenceStore.open(tmp_path / "a")
    store.check(MADE_OF)
    with pytest.raises(UserError, match=r"is of other things than this run: model abc, not abd;"):
        store.check(dataclasses.replace(MADE_OF, model="abd"))
    with pytest.raises(UserError, match="examples 123, not 4; sequence_length 8, not 9"):
        store.check(dataclasses.replace(MADE_OF, examples="4", sequence_length=9))


def test_a_damaged_store_is_refused(tmp_path):
    write(tmp_path / "a").close({"train": 4})
    values = np.fromfile(tmp_path / "a" / "train.log_probs", np.float32)
    values[1] = -2.5
    values.tofile(tmp_path / "a" / "train.log_probs")
    with pytest.raises(UserError, match=r"log-probabilities '.*a' is damaged \(train.log_probs"):
        ReferenceStore.open(tmp_path / "a")
    index = json.loads((tmp_path / "a" / INDEX).read_text())
    index["made_of"]["model"] = "abd"
    (tmp_path / "a" / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="is not what was written"):
        ReferenceStore.open(tmp_path / "a")
    with pytest.raises(UserError, match=r"no store of a reference's log-probabilities at"):
        ReferenceStore.open(tmp_path / "b")


def test_rows_have_the_log_probabilities_of_their_tokens(tmp_path):
    """Two pairs, the lines 1 and 3; the second line does not fit a row."""
    texts = {1: ([8, 9, 10], [8, 11]), 2: ([8] * 7, [9] * 7), 3: ([12, 13], [12, 14])}
    with ExampleWriter(
        tmp_path / "store", vocab_size=16, special=SPECIAL, description={}
    ) as writer:
        for line, both in texts.items():
            examples = [
                causal_example(np.array(ids), np.arange(len(ids)) == len(ids) - 1) for ids in both
            ]
            examples = [
                dataclasses.replace(one, margin=margin)
                for one, margin in zip(examples, (0.5 * line, 0.0), strict=True)
            ]
            writer.add("train", examples, [(0, line)] * 2)
    store = ExampleStore.open(tmp_path / "store")
    rows = ExampleRowBuilder("train", store, 8, True, seed=0, sharing="answers")
    assert rows.tokens_of(np.array([0, 1, 2])).tolist() == [
        [0, 1, 2, -1, -1, -1, -1, -1],
        [15, 16, -1, -1, -1, -1, -1, -1],
        [-1] * 8,
    ]
    made_of = dataclasses.replace(MADE_OF, examples=store.fingerprint)
    writer = ReferenceWriter(tmp_path / "a", made_of)
    writer.add("train", 0, 2, np.array([1, 2, 15, 16]), -np.array([1, 2, 3, 4], np.float32))
    writer.close({"train": 17})
    scored = ScoredRowBuilder(rows, "train", ReferenceStore.open(tmp_path / "a"))
    batch, counted = scored.build(np.zeros(2, int), np.array([1, 0]))
    assert isinstance(batch, ScoredBatch)
    assert batch.reference[:, :4].tolist() == [[-3, -4, 0, 0], [0, -1, -2, 0]]
    assert batch.reference.dtype == np.float32
    # The chosen answer has two slots in the row of line 1, and one in that of line 3.
    assert batch.margins[:, :3].tolist() == [[1.5, 0, 0], [0.5, 0.5, 0]]
    assert (batch.margins[:, 3:] == 0).all()
    alone = ScoredRowBuilder(rows, "train", None)
    without, _ = alone.build(np.zeros(2, int), np.array([1, 0]))
    assert without.reference is None
    np.testing.assert_array_equal(without.margins, batch.margins)
    assert alone.store is store
    assert (scored.num_rows, counted["examples"]) == (2, 4)
    # The data of a run is both, and each of them decides it.
    assert scored.store.fingerprint != store.fingerprint
    assert scored.store.description["reference"]["model"] == "abc"
    longer = ExampleRowBuilder("train", store, 16, True, seed=0, sharing="answers")
    with pytest.raises(UserError, match="sequence_length 8, not 16"):
        ScoredRowBuilder(longer, "train", ReferenceStore.open(tmp_path / "a"))
