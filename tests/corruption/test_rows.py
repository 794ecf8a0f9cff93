"""Rows built all at once equal rows built text by text with `assemble` and `assemble_prefix`."""

import dataclasses

import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN, Batch
from glm_jax.config import ObjectiveConfig, PublishedOptions
from glm_jax.corruption import AssemblyOptions, assemble, assemble_prefix
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.masked import assemble_masked
from glm_jax.corruption.plan import Plan, Segments
from glm_jax.corruption.rows import write_rows
from glm_jax.draws import Draws
from glm_jax.ragged import starts
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)
V = 500
ENDS = np.isin(np.arange(V), [20, 21])
CONFIG = ObjectiveConfig(span_weight=0.5, sentence_weight=2.0, document_weight=3.0)
WEIGHTS = {SPAN: 0.5, SENTENCE: 2.0, DOCUMENT: 3.0}
MASKS = {SPAN: SPECIAL.mask, SENTENCE: SPECIAL.smask, DOCUMENT: SPECIAL.gmask}
SINGLE = -1
EVERY_OPTION = PublishedOptions(
    short_sequence_rate=0.5,
    block_mask_rate=0.2,
    context_mask_ratio=0.1,
    block_mask_id=500,
    random_position=True,
    sentinel_id=510,
)


def corpus(rng, mean, size=20_000):
    """(stored tokens, offsets) of documents of about `mean` tokens; every 15th token ends one."""
    sizes = rng.geometric(1 / mean, size // mean + 2)
    tokens = rng.integers(22, V, sizes.sum())
    tokens[rng.random(len(tokens)) < 1 / 15] = 20
    return tokens.astype(np.uint16), np.append(0, np.cumsum(sizes))


def random_segments(rng, offsets, rows, length):
    """Rows that start anywhere and go on through as many documents as may be needed."""
    parts = []
    counts = []
    for _ in range(rows):
        at = int(rng.integers(0, offsets[-1]))
        end = min(at + length, int(offsets[-1]))
        counts.append(0)
        while at < end:
            document = int(np.searchsorted(offsets, at, side="right")) - 1
            stop = min(int(offsets[document + 1]), end)
            parts.append((at, stop - at, at == offsets[document], stop == offsets[document + 1]))
            counts[-1] += 1
            at = stop
    source, size, begins, ends = (np.array(column) for column in zip(*parts, strict=True))
    return Segments(np.array(counts), source, size, begins, ends)


def expected_rows(plan, stored, rows, length, config=CONFIG):
    """The rows of a plan, one text after the other, with the functions that are easy to read."""
    first, options = starts(plan.num_spans), config.published
    fields = None
    ends = dict.fromkeys(range(rows), 0)
    for p in range(len(plan.row)):
        text = [SPECIAL.cls, *stored[plan.source[p] : plan.source[p] + plan.size[p]].tolist()]
        text += [SPECIAL.eos] * int(plan.eos[p])
        objective, row = int(plan.objective[p]), int(plan.row[p])
        spans = range(first[p], first[p] + plan.num_spans[p])
        mask_id = MASKS[objective] if options.task_masks else SPECIAL.mask
        kind = {"mask_id": mask_id, "start_id": SPECIAL.start}
        varied = {"objective": objective}
        if options.sentinel_id is not None and all(plan.closed[s] for s in spans):
            pairs = range(options.sentinel_id, options.sentinel_id + 2 * (len(spans) - 1), 2)
            kind["mask_id"] = [mask_id, *pairs]
            kind["start_id"] = [SPECIAL.start, *(i + 1 for i in pairs)]
            varied["span_position"] = length
        if not all(plan.closed[s] for s in spans):
            (span,) = spans
            assert plan.start[span] + 1 + plan.length[span] == len(text)
            part = assemble_prefix(text, int(plan.length[span]), **kind, **varied)
        else:
            part = assemble(
                text,
                [(plan.start[s] + 1, plan.start[s] + 1 + plan.length[s]) for s in spans],
                [int(plan.order[s]) - first[p] for s in spans],
                end_id=SPECIAL.end,
                **kind,
                options=AssemblyOptions(**varied),
            )
        part["loss_weights"] *= WEIGHTS[objective]
        at, n = ends[row], len(part["tokens"])
        if fields is None:
            fields = {name: np.zeros((rows, length), v.dtype) for name, v in part.items()}
            fields["tokens"][:] = fields["targets"][:] = SPECIAL.pad
        for name, value in part.items():
            shift = at if name in ("attend_start", "attend_end") else 0
            fields[name][row, at : at + n] = value + shift
        ends[row] = at + n
    assert fields is not None
    return fields


def corruptor(length, config=CONFIG, seed=0):
    return Corruptor(config, SPECIAL, ENDS, length, seed)


@pytest.mark.parametrize("kind", [SPAN, SINGLE, SENTENCE, DOCUMENT])
@pytest.mark.parametrize(("mean", "length"), [(4, 32), (30, 16), (30, 128), (2000, 128)])
def test_equal_to_one_text_at_a_time(kind, mean, length):
    rng = np.random.default_rng([mean, length])
    stored, offsets = corpus(rng, mean)
    segments = random_segments(rng, offsets, rows=60, length=length)
    draws = Draws(0, np.zeros(60, np.int64), np.arange(60))
    plan = corruptor(length).plan(kind, segments, draws, stored)
    written = write_rows(plan, stored, 60, length, SPECIAL, CONFIG)
    expected = expected_rows(plan, stored, 60, length)
    for name, value in expected.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
        assert written[name].dtype == value.dtype
    objectives = {SPAN: {SPAN}, SINGLE: {SPAN}, DOCUMENT: {DOCUMENT}}.get(kind, {SPAN, SENTENCE})
    assert set(plan.objective.tolist()) <= objectives
    assert len(np.unique(plan.row)) == 60


@pytest.mark.parametrize("kind", [SPAN, SENTENCE, DOCUMENT])
@pytest.mark.parametrize(
    "options", [PublishedOptions(task_masks=False), PublishedOptions(sentinel_id=500)]
)
def test_masks_and_start_tokens(kind, options):
    config = dataclasses.replace(CONFIG, document_prefix_rate=0.0, published=options)
    rng = np.random.default_rng(8)
    stored, offsets = corpus(rng, 40)
    segments = random_segments(rng, offsets, rows=40, length=96)
    draws = Draws(0, np.zeros(40, np.int64), np.arange(40))
    plan = corruptor(96, config).plan(kind, segments, draws, stored)
    written = write_rows(plan, stored, 40, 96, SPECIAL, config)
    for name, value in expected_rows(plan, stored, 40, 96, config).items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)


def test_masked_lm_equals_one_text_at_a_time():
    config = ObjectiveConfig(span_weight=0.5, published=PublishedOptions(masked_lm=True))
    rng = np.random.default_rng(9)
    stored, offsets = corpus(rng, 40)
    segments = random_segments(rng, offsets, rows=40, length=96)
    draws = Draws(0, np.zeros(40, np.int64), np.arange(40))
    plan = corruptor(96, config).plan(SPAN, segments, draws, stored)
    written, counted = corruptor(96, config).build(
        segments, stored, np.zeros(40, np.int64), np.arange(40)
    )
    first, used = starts(plan.num_spans), dict.fromkeys(range(40), 0)
    for p, row in enumerate(plan.row.tolist()):
        text = [SPECIAL.cls, *stored[plan.source[p] : plan.source[p] + plan.size[p]].tolist()]
        text += [SPECIAL.eos] * int(plan.eos[p])
        inside = slice(first[p], first[p] + plan.num_spans[p])
        start = plan.start[inside] + 1
        spans = np.column_stack([start, start + plan.length[inside]])
        part = assemble_masked(text, spans, mask_id=SPECIAL.mask)
        part["loss_weights"] *= 0.5
        at = used[row]
        used[row] += len(text)
        for name, value in part.items():
            shift = at if name in ("attend_start", "attend_end") else 0
            np.testing.assert_array_equal(written[name][row, at : used[row]], value + shift, name)
    assert counted["places_used"] == sum(used.values()) == (written["attend_end"] > 0).sum()
    assert counted["targets"] == counted["masked_tokens"] == (written["loss_weights"] > 0).sum()
    assert counted["places_used"] > 0.98 * 40 * 96


def test_docstring_example():
    a, b, c, d, e = range(30, 35)
    plan = Plan(
        row=np.array([0, 0]),
        source=np.array([0, 3]),
        size=np.array([3, 2]),
        eos=np.array([True, False]),
        objective=np.array([SPAN, SPAN]),
        num_spans=np.array([1, 1]),
        start=np.array([1, 0]),
        length=np.array([1, 1]),
        closed=np.array([True, True]),
        order=np.array([0, 1]),
        fewer=np.array([False]),
        fallen_back=np.array([False]),
    )
    C, M, E, S, P, pad = 8, 3, 9, 6, 7, 1
    fields = write_rows(plan, np.array([a, b, c, d, e]), 1, 16, SPECIAL, ObjectiveConfig())
    assert {name: value[0].tolist() for name, value in fields.items()} == {
        "tokens": [C, a, M, c, E, S, b, C, M, e, S, d, pad, pad, pad, pad],
        "targets": [C, a, M, c, E, b, P, C, M, e, d, P, pad, pad, pad, pad],
        "loss_weights": [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 2, 2, 0, 1, 2, 1, 1, 0, 0, 0, 0],
        "block_positions": [0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0, 0],
        "attend_start": [0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 0, 0, 0, 0],
        "attend_end": [5, 5, 5, 5, 5, 6, 7, 10, 10, 10, 11, 12, 0, 0, 0, 0],
        "objective": [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0],
    }


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_row_without_segments_is_all_padding(empty):
    rng = np.random.default_rng(0)
    stored, offsets = corpus(rng, 30)
    segments = random_segments(rng, offsets, rows=3, length=64)
    kept = np.flatnonzero(segments.row != empty)
    fields, counted = corruptor(64).build(
        segments.choose(kept), stored, np.zeros(3, np.int64), np.arange(3)
    )
    assert (fields["tokens"][empty] == SPECIAL.pad).all()
    for name in set(fields) - {"tokens", "targets"}:
        assert not fields[name][empty].any()
    assert (fields["loss_weights"].sum(axis=1) > 0).sum() == 2
    assert counted["rows"] == 3


def test_only_rows_without_segments():
    none = np.zeros(0, np.int64)
    segments = Segments(np.zeros(2, np.int64), none, none, none.astype(bool), none.astype(bool))
    for kind in (SPAN, SENTENCE, DOCUMENT):
        draws = Draws(0, np.zeros(2, np.int64), np.arange(2))
        plan = corruptor(16).plan(kind, segments, draws, np.arange(30, 40))
        fields = write_rows(plan, np.arange(30, 40), 2, 16, SPECIAL, CONFIG)
        assert (fields["tokens"] == SPECIAL.pad).all()


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        ObjectiveConfig(span_rate=0.4, sentence_rate=0.3, document_rate=0.3, single_span_rate=0.5),
        dataclasses.replace(CONFIG, published=EVERY_OPTION),
    ],
)
def test_rows_do_not_depend_on_the_rows_beside_them(config):
    rng = np.random.default_rng(5)
    stored, offsets = corpus(rng, 30)
    segments = random_segments(rng, offsets, rows=150, length=64)
    epochs, rows = rng.integers(0, 3, 150), rng.integers(0, 10**12, 150)
    together, counted = corruptor(64, config).build(segments, stored, epochs, rows)
    total = dict.fromkeys(counted, 0)
    for r in (*range(0, 150, 7), 149):
        one = segments.take(np.array([r]))
        alone, _ = corruptor(64, config).build(one, stored, epochs[[r]], rows[[r]])
        for name, value in alone.items():
            np.testing.assert_array_equal(value[0], together[name][r], err_msg=name)
    for part in np.split(np.arange(150), [40, 100]):
        taken = segments.take(part)
        _, some = corruptor(64, config).build(taken, stored, epochs[part], rows[part])
        total = {name: total[name] + some[name] for name in total}
    assert total == counted
    Batch.from_dict(together)


def test_statistics_count_what_is_in_the_rows():
    config = ObjectiveConfig(span_rate=0.4, sentence_rate=0.3, document_rate=0.3)
    rng = np.random.default_rng(6)
    stored, offsets = corpus(rng, 40)
    segments = random_segments(rng, offsets, rows=100, length=96)
    fields, counted = corruptor(96, config).build(
        segments, stored, np.zeros(100, np.int64), np.arange(100)
    )
    tokens, weights = fields["tokens"], fields["loss_weights"]
    assert counted["rows"] == 100
    assert counted["places_used"] == (fields["attend_end"] > 0).sum()
    assert counted["targets"] == (weights > 0).sum() == (fields["objective"] > 0).sum()
    ordinary = ~np.isin(tokens, [3, 4, 5, 6, 7, 8, 9, 1])
    predicted = (weights > 0) & (fields["targets"] != SPECIAL.end)
    assert counted["masked_tokens"] == predicted.sum()
    # Source tokens stand in part A, or are predicted; eos is predicted but not a source token.
    predicted_eos = (weights > 0) & (fields["targets"] == SPECIAL.eos)
    assert counted["source_tokens"] == (
        (ordinary & (weights == 0)).sum() + predicted.sum() - predicted_eos.sum()
    )
