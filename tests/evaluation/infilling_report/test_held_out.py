"""Windows over documents, and the texts made of them against rows of training."""

import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.data.store import Documents, StoreWriter, TokenStore
from glm_jax.evaluation.infilling_report.held_out import held_out_texts, windows
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=1, pad=0)
V, T = 60, 40


def documents(*sizes):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return Documents("eval", np.arange(offsets[-1]), offsets)


def spans_of(found):
    segments = found.segments
    return list(zip(segments.source.tolist(), segments.size.tolist(), strict=True))


def test_windows_lie_around_points_at_equal_distances():
    """Points 5, 15, 25 of 30 tokens; windows of 8 around them, moved into their documents."""
    found = windows(documents(16, 4, 10), 3, 8)
    assert spans_of(found) == [(1, 8), (8, 8), (21, 8)]
    assert found.first.tolist() == [1, 8, 1]
    assert found.document.tolist() == [16, 16, 10]
    assert found.segments.begins.tolist() == [False, False, False]
    assert found.segments.ends.tolist() == [False, True, False]


def test_short_documents_are_taken_whole_and_once():
    """No more than 28 / 8 windows: points 3, 10, 17, 24. Of 9 tokens, points 2 and 6."""
    found = windows(documents(4, 4, 20), 100, 8)
    assert spans_of(found) == [(0, 4), (8, 8), (13, 8), (20, 8)]
    assert found.segments.begins.tolist() == [True, True, False, False]
    assert found.segments.ends.tolist() == [True, False, False, True]
    assert spans_of(windows(documents(7, 2), 2, 8)) == [(0, 7)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("held_out") / "store"
    ends = np.zeros(V, bool)
    ends[[10, 11]] = True
    with StoreWriter(
        directory, vocab_size=V, special=SPECIAL, sentence_ends=ends, description={}
    ) as writer:
        draws = np.random.default_rng(0)
        writer.add("eval", [draws.integers(10, V, size) for size in (100, 9, 55, 30)])
    return TokenStore.open(directory)


@pytest.mark.parametrize("kind", [SPAN, SENTENCE, DOCUMENT])
def test_rows_are_those_of_training(store, kind):
    """The order that training draws, given by hand, makes the row that training has."""
    config = ObjectiveConfig(
        span_rate=float(kind == SPAN),
        sentence_rate=float(kind == SENTENCE),
        document_rate=float(kind == DOCUMENT),
        mask_ratio=0.3,
        mean_span_length=1.5,
    )
    found = windows(store.splits["eval"], 8, T)
    texts = held_out_texts(store, found, "eval", kind, config, length=T, seed=5)
    rows = np.arange(len(found.first))
    corruptor = Corruptor(config, SPECIAL, store.sentence_ends, T, 5)
    stored = store.splits["eval"].tokens
    fields, _ = corruptor.build(found.segments, stored, np.zeros_like(rows), rows)
    assert len(texts) == len(rows) if kind != SENTENCE else len(texts) > 0
    mask = SPECIAL.masks_by_objective()[kind]
    for text in texts:
        tokens = fields["tokens"][text.index]
        # Which mask each span of part B names tells the order.
        firsts = np.flatnonzero(fields["block_positions"][text.index] == 1)
        masks = np.flatnonzero((tokens == mask) & (fields["block_positions"][text.index] == 0))
        masks = masks[masks < firsts[0]]
        positions = fields["positions"][text.index][firsts]
        order = [masks.tolist().index(position) for position in positions.tolist()]
        row = text.row(order, SPECIAL, mask)
        size = len(row["tokens"])
        for name, values in row.items():
            np.testing.assert_array_equal(fields[name][text.index, :size], values, err_msg=name)
        assert not fields["loss_weights"][text.index, size:].any()
        source = int(found.segments.source[text.index])
        end = source + len(text.tokens) - 1
        assert text.tokens[0] == SPECIAL.cls
        body = text.tokens[1:-1] if text.tokens[-1] == SPECIAL.eos else text.tokens[1:]
        assert body == stored[source:end][: len(body)].tolist()
