"""Short texts cut out of rows, as the published loader does."""

import random

import numpy as np

from glm_jax.corruption.published.crops import crop_rows
from glm_jax.corruption.published.text_rows import TextRow

CLS = 1
ENDS = np.isin(np.arange(400), [10])


def row_of(tokens):
    tokens = np.asarray(tokens)
    return TextRow(tokens, (tokens != CLS).astype(np.int64))


def test_crops_are_stretches_between_sentences():
    body = np.arange(100, 330)
    body[9::10] = 10  # every tenth token ends a sentence
    row = row_of([CLS, *body])
    for seed in range(30):
        size = random.Random(seed).randrange(32, 127)
        (crops,) = crop_rows([row], random.Random(seed), cls_id=CLS, sentence_ends=ENDS, length=128)
        assert len(crops) == 127 // size
        for crop in crops:
            text = crop.tokens[1:]
            assert crop.tokens[0] == CLS
            assert crop.weights.tolist() == [0] + [1] * len(text)
            start = int(np.flatnonzero(body == text[0])[0])
            np.testing.assert_array_equal(text, body[start : start + len(text)])
            assert start % 10 == 0
            assert text[-1] == 10
            assert size - 10 < len(text) <= size


def test_a_crop_without_a_sentence_end_has_its_whole_length():
    row = row_of([CLS, *range(100, 300)])
    size = random.Random(5).randrange(32, 127)
    (crops,) = crop_rows([row], random.Random(5), cls_id=CLS, sentence_ends=ENDS, length=128)
    # Its start goes back to that of the row, the only one there is.
    assert [crop.tokens.tolist() for crop in crops] == [
        [CLS, *range(100, 100 + size)] for _ in crops
    ]


def test_a_short_row_is_repeated():
    rng = random.Random(0)
    size = random.Random(0).randrange(32, 127)
    rows = [row_of([CLS, *range(100, 100 + size)]), row_of([CLS, 10])]
    crops = crop_rows(rows, rng, cls_id=CLS, sentence_ends=ENDS, length=128)
    assert crops == [[row] * (127 // size) for row in rows]
    reference = random.Random(0)
    reference.randrange(32, 127)
    assert rng.getstate() == reference.getstate(), "nothing else is drawn"
