"""What a row holds can be turned back into the stored stream, whatever was drawn."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.config import DataConfig, ObjectiveConfig, PublishedOptions
from glm_jax.corruption.plan import SHORTEST_BEGINNING
from glm_jax.data.rows import ROW_FORMAT, RowBuilder
from glm_jax.data.store import Documents, TokenStore
from glm_jax.errors import UserError
from glm_jax.ragged import starts
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)
FIRST = 30  # the i-th stored token has the id FIRST + i, so that a row says where it comes from
SPANS = ObjectiveConfig()
SENTENCES = ObjectiveConfig(span_rate=0.0, sentence_rate=1.0)
DOCUMENTS = ObjectiveConfig(span_rate=0.0, document_rate=1.0)
CAUSALS = ObjectiveConfig(span_rate=0.0, causal_rate=1.0)
MIXED = ObjectiveConfig(
    span_rate=0.4, sentence_rate=0.3, document_rate=0.3, single_span_rate=0.2, document_weight=0.5
)


def store_of(sizes, ends_every=17):
    """A store whose documents have the given sizes, and its sentence ends."""
    n = int(np.sum(sizes))
    tokens = np.arange(FIRST, FIRST + n, dtype=np.int32)
    sentence_ends = np.zeros(FIRST + n, bool)
    sentence_ends[FIRST + ends_every - 1 :: ends_every] = True
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    documents = Documents("train", tokens, offsets)
    return TokenStore(FIRST + n, SPECIAL, sentence_ends, {"train": documents}, {})


def builder_of(store, objective, length, seed=0):
    data = DataConfig(sequence_length=length)
    return RowBuilder(store.splits["train"], store, data, objective, seed)


def geometric(mean, total, seed=0):
    return np.random.default_rng(seed).geometric(1 / mean, total // mean + 1)


def segments(batch, row):
    """(first slot, end) of each segment of a row, by the key intervals alone."""
    used = int((batch.attend_end[row] > 0).sum())
    assert not batch.attend_end[row, used:].any()
    start = batch.attend_start[row]
    edges = np.flatnonzero(np.diff(start[:used], prepend=-1, append=-1))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def read_back(batch, row, first, end):
    """The text of a segment, each span put back where its mask is, and the tokens masked.

    Everything a model relies on is checked on the way: intervals, both positions, targets.
    """
    names = ("tokens", "targets", "loss_weights", "positions", "block_positions")
    tokens, targets, weights, positions, blocks = (
        getattr(batch, name)[row, first:end].tolist() for name in names
    )
    attend_end = batch.attend_end[row, first:end] - first
    n, part_a = end - first, int(attend_end[0])
    np.testing.assert_array_equal(batch.attend_start[row, first:end], first)
    np.testing.assert_array_equal(attend_end, np.maximum(part_a, np.arange(1, n + 1)))
    assert positions[:part_a] == list(range(part_a))
    assert blocks[:part_a] == [0] * part_a
    assert targets[:part_a] == tokens[:part_a]
    assert not any(weights[:part_a])
    assert all(weights[part_a:])
    spans = {}
    slot = part_a
    while slot < n:
        assert tokens[slot] == SPECIAL.start
        length = 1
        while slot + length < n and tokens[slot + length] != SPECIAL.start:
            length += 1
        span = slice(slot, slot + length)
        assert len(set(positions[span])) == 1
        assert blocks[span] == list(range(1, length + 1))
        assert tokens[slot + 1 : slot + length] == targets[slot : slot + length - 1]
        spans[positions[slot]] = targets[span]
        slot += length
    masks = [i for i in range(part_a) if tokens[i] in SPECIAL.masks]
    assert sorted(spans) == masks
    text: list[int] = []
    masked = []
    for i in range(part_a):
        span = spans.get(i)
        if span is None:
            text.append(tokens[i])
            continue
        closed = span[-1] == SPECIAL.end
        assert closed or (len(masks) == 1 and i == part_a - 1)
        text += span[:-1] if closed else span
        masked += span[:-1] if closed else span
    return text, masked, part_a, [tokens[i] for i in masks]


def check_row(batch, row, store, objective):
    """Checks a row and returns the indices of its stored tokens."""
    documents = store.splits["train"]
    used = []
    parts = segments(batch, row)
    for number, (first, end) in enumerate(parts):
        text, masked, part_a, masks = read_back(batch, row, first, end)
        assert text[0] == SPECIAL.cls
        eos = text[-1] == SPECIAL.eos
        source = np.array(text[1 : len(text) - eos]) - FIRST
        np.testing.assert_array_equal(np.diff(source), 1)
        document = np.searchsorted(documents.offsets, source[0], side="right") - 1
        assert source[-1] < documents.offsets[document + 1]
        if eos:
            assert source[-1] + 1 == documents.offsets[document + 1]
        else:
            # Only the last document of a row is cut, or lacks the slot for its eos.
            assert number == len(parts) - 1
        if number:
            assert source[0] == documents.offsets[document]
            assert source[0] == (used[-1] + 1) % documents.num_tokens
        used += source.tolist()
        assert masked, "every text has something to predict"
        assert SPECIAL.cls not in masked
        (kind,) = set(batch.objective[row, first + part_a : end].tolist())
        assert set(masks) == {[0, SPECIAL.mask, SPECIAL.smask, SPECIAL.gmask][kind]}
        if kind != DOCUMENT:
            assert SPECIAL.eos not in masked
        if kind == SPAN:
            # Neighbouring spans have a visible token between them.
            assert len(masks) == 1 or (np.diff(np.sort(masks_at(batch, row, first))) > 1).all()
        weight = {
            SPAN: objective.span_weight,
            SENTENCE: objective.sentence_weight,
            DOCUMENT: objective.document_weight,
        }
        assert set(batch.loss_weights[row, first + part_a : end].tolist()) == {weight[kind]}
    assert len(set(used)) == len(used)
    return used


def masks_at(batch, row, first):
    end = batch.attend_end[row, first]
    return np.flatnonzero(np.isin(batch.tokens[row, first:end], SPECIAL.masks))


@pytest.mark.parametrize("objective", [SPANS, SENTENCES, DOCUMENTS, MIXED])
@pytest.mark.parametrize("mean", [6, 40, 3000])
def test_rows_read_back(objective, mean):
    store = store_of(geometric(mean, 20_000))
    builder = builder_of(store, objective, 128)
    batch, _ = builder.build(np.full(64, 2), np.arange(64))
    for row in range(64):
        check_row(batch, row, store, objective)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    length=st.integers(16, 90),
    ends_every=st.integers(1, 30),
    rates=st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    mask_ratio=st.sampled_from([0.05, 0.15, 0.6, 0.95]),
    mean_span_length=st.sampled_from([0.1, 3.0, 20.0]),
    max_span_length=st.sampled_from([1, 39]),
    shuffle_spans=st.booleans(),
    document_prefix_rate=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_corpus_and_any_objective_read_back(
    sizes, length, ends_every, rates, seed, **settings_of_objective
):
    store = store_of(sizes, ends_every)
    objective = ObjectiveConfig(*rates, **settings_of_objective)
    builder = builder_of(store, objective, length, seed)
    rows = np.arange(builder.num_rows + 1)
    batch, counted = builder.build(np.zeros_like(rows), rows)
    for row in rows[:-1]:
        assert check_row(batch, row, store, objective)
    assert not batch.attend_end[-1].any(), "rows from num_rows on are padding"
    assert counted["rows"] == len(rows)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    length=st.integers(16, 90),
    seed=st.integers(0, 2**64 - 1),
)
def test_causal_rows_read_back(sizes, length, seed):
    """Every segment is [gMASK], the start token and a stretch of one document."""
    store = store_of(sizes)
    offsets = store.splits["train"].offsets
    builder = builder_of(store, CAUSALS, length, seed)
    rows = np.arange(builder.num_rows)
    batch, _ = builder.build(np.zeros_like(rows), rows)
    for row in rows:
        parts = segments(batch, row)
        assert parts
        for first, end in parts:
            tokens, targets = batch.tokens[row, first:end], batch.targets[row, first:end]
            assert tokens[:2].tolist() == [SPECIAL.gmask, SPECIAL.start]
            np.testing.assert_array_equal(targets[:-1], tokens[1:])
            source = tokens[2:] - FIRST
            np.testing.assert_array_equal(np.diff(source), 1)
            document_end = offsets[np.searchsorted(offsets, source[0], side="right")]
            goes_on = source[-1] + 1 < document_end
            assert targets[-1] == (tokens[-1] + 1 if goes_on else SPECIAL.eos)
            assert source[-1] < document_end
            assert batch.loss_weights[row, first:end].tolist() == [0.0] + [1.0] * (end - first - 1)


@pytest.mark.parametrize("objective", [SPANS, SENTENCES, DOCUMENTS, MIXED, CAUSALS])
@pytest.mark.parametrize("length", [128, 512, 2048])
@pytest.mark.parametrize("mean", [20, 100, 10_000])
def test_places_used(objective, length, mean):
    """At least 97 % of the slots of full rows are used, whatever the corpus."""
    store = store_of(geometric(mean, 100_000))
    builder = builder_of(store, objective, length)
    rows = np.arange(builder.num_rows)
    _, counted = builder.build(np.zeros_like(rows), rows)
    assert counted["places_used"] >= 0.97 * len(rows) * length
    assert counted["places_used"] <= len(rows) * length


@pytest.mark.parametrize(
    ("objective", "repeated"),
    [(SPANS, 0.08), (DOCUMENTS, 0.08), (MIXED, 0.15), (CAUSALS, 0.08)],
)
@pytest.mark.parametrize("mean", [20, 100, 10_000])
def test_an_epoch_reads_nearly_every_token_about_once(objective, repeated, mean):
    store = store_of(geometric(mean, 100_000))
    builder = builder_of(store, objective, 512)
    rows = np.arange(builder.num_rows)
    batch, counted = builder.build(np.ones_like(rows), rows)
    total = store.splits["train"].num_tokens
    seen = np.zeros(total, bool)
    for values in (batch.tokens, batch.targets):
        text = values[values >= FIRST] - FIRST
        seen[text] = True
    assert seen.mean() > 0.99
    assert counted["source_tokens"] / total < 1 + repeated


def test_epochs_cut_their_windows_elsewhere():
    store = store_of(geometric(3000, 50_000))

    def first_tokens():
        builder, epochs = builder_of(store, SPANS, 256), np.arange(50)
        batch, _ = builder.build(epochs, np.full(50, 3))
        return [check_row(batch, row, store, SPANS)[0] for row in range(50)]

    # Row 3 starts after 3 to 4 times what a row holds, about 227 tokens.
    assert len(set(first_tokens())) > 35
    assert 3 * 220 <= min(first_tokens()) < 3.2 * 227
    assert 3.8 * 227 < max(first_tokens()) <= 4 * 230
    assert first_tokens() == first_tokens()


def test_windows_start_at_a_document_or_well_inside_of_it():
    store = store_of(geometric(60, 20_000))
    builder, offsets = builder_of(store, SPANS, 64), store.splits["train"].offsets
    rows = np.arange(builder.num_rows)
    segments = builder._segments(rows * 0, rows)
    first = starts(segments.counts)
    source = segments.source[first]
    inside = source - offsets[offsets.searchsorted(source, "right") - 1]
    assert (inside == 0).any()
    assert inside[inside > 0].min() == SHORTEST_BEGINNING
    np.testing.assert_array_equal(segments.begins, np.isin(segments.source, offsets))
    np.testing.assert_array_equal(segments.ends, np.isin(segments.source + segments.size, offsets))


def test_the_seed_decides():
    store = store_of(geometric(100, 20_000))
    rows = np.arange(8)
    seeds = (1, 2, 1 + 2**32, 1 + 2**63)
    one, *others = (builder_of(store, SPANS, 128, seed).build(rows * 0, rows)[0] for seed in seeds)
    for other in others:
        assert (one.tokens != other.tokens).any(axis=1).all()
    with pytest.raises(UserError, match="seed must be at most 18446744073709551615"):
        builder_of(store, SPANS, 128, 2**64).build(rows * 0, rows)


def test_one_document_of_a_hundred_million_tokens():
    size = 2 * 10**8
    documents = Documents("train", np.zeros(size, np.uint16), np.array([0, size]))
    store = dataclasses.replace(store_of([5]), splits={"train": documents})
    builder = builder_of(store, SPANS, 128)
    rows = builder.num_rows * np.arange(5) // 5
    source = builder._segments(np.zeros(5, np.int64), rows).source
    np.testing.assert_allclose(source, size * np.arange(5) / 5, atol=2000)


def test_rows_stay_what_they_are():
    """A run that goes on after an update must go on with the same rows (docs/decisions/004).

    Whoever changes them raises `ROW_FORMAT`, and older runs are refused.
    """
    store = store_of([5, 300, 41, 1, 80])
    rows = np.arange(40)
    batch, _ = builder_of(store, MIXED, 64).build(rows % 3, rows % 7)
    checksum = hashlib.sha256()
    for value in batch.to_dict().values():
        checksum.update(np.ascontiguousarray(value).tobytes())
    assert (ROW_FORMAT, checksum.hexdigest()[:16]) == (2, "c4d60dc61bdbc202")


def masked_tokens(batch, row=slice(None)):
    """Indices of the stored tokens that rows predict."""
    targets = batch.targets[row][batch.loss_weights[row] > 0]
    return targets[targets >= FIRST] - FIRST


def test_a_text_is_masked_anew_in_each_epoch():
    # One text that fills no row: the window is the same in all epochs, what is cut out is not.
    batch, _ = builder_of(store_of([60]), SPANS, 128).build(np.arange(10), np.zeros(10, np.int64))
    assert len({tuple(sorted(masked_tokens(batch, row))) for row in range(10)}) == 10
    # A corpus: whether a token is masked in one epoch says nothing of the next.
    total = 100_000
    builder = builder_of(store_of(geometric(500, total)), SPANS, 512)
    rows = np.arange(builder.num_rows)
    masked = np.zeros((2, total), bool)
    for epoch in range(2):
        here = masked_tokens(builder.build(np.full_like(rows, epoch), rows)[0])
        masked[epoch, here[here < total]] = True
    assert (abs(masked.mean(axis=1) - 0.15) < 0.02).all()
    # A span decides on about four tokens at once.
    assert abs(np.corrcoef(masked)[0, 1]) < 5 * np.sqrt(4 / total)


def test_short_texts_and_masked_lm_fill_their_rows():
    for published in (PublishedOptions(short_sequence_rate=1.0), PublishedOptions(masked_lm=True)):
        store = store_of(geometric(3000, 60_000))
        builder = builder_of(store, ObjectiveConfig(published=published), 512)
        rows = np.arange(builder.num_rows)
        batch, counted = builder.build(np.zeros_like(rows), rows)
        assert counted["places_used"] >= 0.97 * len(rows) * 512
        text = np.concatenate([x[x >= FIRST] for x in (batch.tokens, batch.targets)]) - FIRST
        total = store.splits["train"].num_tokens
        assert len(np.unique(text)) > 0.97 * total
        assert counted["source_tokens"] < 1.12 * total


def test_a_corpus_smaller_than_a_row():
    store = store_of([5])
    builder = builder_of(store, SPANS, 128)
    assert builder.num_rows == 1
    batch, _ = builder.build(np.array([0, 1, 2]), np.zeros(3, np.int64))
    for row in range(3):
        check_row(batch, row, store, SPANS)


def test_empty_split():
    store = store_of([5])
    empty = dataclasses.replace(
        store.splits["train"], name="eval", tokens=np.zeros(0, np.int32), offsets=np.zeros(1, int)
    )
    with pytest.raises(UserError, match="split 'eval' of the corpus is empty"):
        RowBuilder(empty, store, DataConfig(), SPANS, 0)
