"""What is learnt, marked in the text of a row."""

import pytest

from glm_jax.data.examples.example import blank_example, causal_example
from glm_jax.data.examples.picture import COLOURS, spell_examples
from glm_jax.data.examples.rows import ExampleRowBuilder
from glm_jax.data.examples.store import ExampleStore
from glm_jax.data.picture import row_of
from tests.data.examples.test_store import written

CAUSAL = causal_example([10, 11, 12, 10, 13], [False, True, False, True, True])
BLANK = blank_example([14, 2, 4, 15, 5], [False, False, False, True, True], prefix=2, blank=1)


def decode(ids):
    return "".join("\n" if id_ == 12 else f"{id_:x}" for id_ in ids)


@pytest.mark.parametrize(
    ("example", "text", "learnt"), [(CAUSAL, r"a«b»\n«ad»", 3), (BLANK, "e24«f5»", 2)]
)
def test_marks(tmp_path, example, text, learnt):
    store = ExampleStore.open(written(tmp_path / "store", [example], lines=[1]))
    row = row_of(ExampleRowBuilder("train", store, 16, True, seed=1).build([0], [0])[0], 0)
    said = spell_examples(row, decode)
    assert said == f"example 1: 4 slots, {learnt} learnt\n  {text}"
    begin, end = COLOURS
    assert spell_examples(row, decode, COLOURS) == said.replace("«", begin).replace("»", end)


def test_examples_have_the_names_that_are_given(tmp_path):
    store = ExampleStore.open(written(tmp_path / "store", [CAUSAL, CAUSAL], lines=[1, 1]))
    builder = ExampleRowBuilder("train", store, 16, True, seed=1, sharing="answers")
    said = spell_examples(row_of(builder.build([0], [0])[0], 0), decode, names=("chosen",))
    assert [line.partition(":")[0] for line in said.splitlines()[::2]] == ["chosen", "example 2"]
