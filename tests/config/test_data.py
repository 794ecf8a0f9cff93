"""The section `data`: borders of its numbers, and mixtures however they are written."""

import pytest

from glm_jax.config import DataConfig
from glm_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("sequence_length", 16, 15),
        ("batch_size", 1, 0),
        ("eval_fraction", 1e-9, 0.0),
        ("eval_fraction", 1 - 1e-9, 1.0),
        ("source", "tfds:wiki:1.0.0", "tfds:"),
        ("source", "task:name", "task:"),
        ("source", "t", ""),
    ],
)
def test_borders(name, allowed, refused):
    assert getattr(DataConfig(**{name: allowed}), name) == allowed
    with pytest.raises(UserError, match=rf"^data\.{name} must be .*; got "):
        DataConfig(**{name: refused})


MIXTURES = [
    {"wiki": ("wiki/*.txt", 0.7), "books": ("books/*.jsonl", 0.3)},
    "wiki=wiki/*.txt@0.7, books=books/*.jsonl@0.3",
    (("wiki", "wiki/*.txt", 0.7), ("books", "books/*.jsonl", 0.3)),
]


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_mixture_is_kept_as_a_tuple_however_it_was_written(mixture):
    data = DataConfig(mixture=mixture)
    assert data.mixture == MIXTURES[2]
    assert [(part.name, part.source, part.rate) for part in data.components] == list(MIXTURES[2])
    # What is kept is read again as what it was: a config can be written and read.
    assert DataConfig(mixture=data.mixture) == data
    hash(data)


def test_without_a_mixture_there_is_one_source():
    assert DataConfig().components == ()
    assert DataConfig(mixture=()).mixture is None
    assert (DataConfig().source, DataConfig().tokenizer) == ("bundled", "bundled")
