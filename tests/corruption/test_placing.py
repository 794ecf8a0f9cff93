"""Placement against the published code's numbers (tests/golden/glm/data/placing.json)."""

import json
from pathlib import Path

import pytest

from glm_jax.corruption import place_in_documents, place_spans

GOLDEN = Path(__file__).parents[1] / "golden" / "glm" / "data"
CASES = json.loads((GOLDEN / "placing.json").read_text())["cases"]
SPANS = [case for case in CASES if case["kind"] == "place_spans"]
DOCUMENTS = [case for case in CASES if case["kind"] == "place_in_documents"]


def test_golden_file_has_all_cases():
    assert (len(SPANS), len(DOCUMENTS)) == (20, 14)


@pytest.mark.parametrize("case", SPANS, ids=lambda case: case["id"])
def test_place_spans_golden(case):
    given, offset = case["input"], case["input"]["offset"]
    spans = place_spans(given["lengths"], given["total_length"], case["decisions"]["draws"])
    assert [[start + offset, end + offset] for start, end in spans] == case["output"]


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case["id"])
def test_place_in_documents_golden(case):
    spans, kept = place_in_documents(
        case["input"]["tokens"],
        case["decisions"]["length_order_after_shuffle"],
        case["decisions"]["draws"],
        cls_id=1,
        eos_id=0,
    )
    assert [list(span) for span in spans] == case["output"]["spans"]
    assert kept == case["output"]["row_kept"]


def test_docstring_example_of_place_in_documents():
    row = [1, 20, 21, 0, 1, 30, 31, 32, 33, 34, 0]
    assert place_in_documents(row, [1, 2], [0, 1], cls_id=1, eos_id=0) == ([(5, 6), (8, 10)], True)


def test_the_last_token_of_a_cut_row_is_spared():
    row = [1, 20, 0, 1, 30, 31, 32]
    assert place_in_documents(row, [2], [0], cls_id=1, eos_id=0) == ([(4, 6)], True)
    assert place_in_documents(row, [3], [0], cls_id=1, eos_id=0) == ([], False)
    # With its eos the second document is not cut.
    assert place_in_documents([*row, 0], [3], [0], cls_id=1, eos_id=0) == ([(4, 7)], True)


def test_of_documents_of_one_size_the_later_one_comes_first():
    row = [1, *range(20, 30), 0, 1, *range(30, 40), 0]
    assert place_in_documents(row, [1, 1], [0, 0], cls_id=1, eos_id=0) == ([(13, 14), (1, 2)], True)


@pytest.mark.parametrize(
    ("lengths", "total", "draws", "spans"),
    [
        ([3, 2, 1], 20, [5, 0, 12], [(0, 3), (9, 11), (19, 20)]),
        ([], 5, [], []),
        ([4], 4, [0], [(0, 4)]),
        ([1, 1, 1], 5, [0, 0, 0], [(0, 1), (2, 3), (4, 5)]),
    ],
)
def test_place_spans_by_arithmetic(lengths, total, draws, spans):
    assert place_spans(lengths, total, draws) == spans


@pytest.mark.parametrize(
    ("lengths", "total", "draws", "message"),
    [
        ([3, 3], 6, [0, 0], "need 7 tokens; total is 6"),
        ([3], 5, [3], r"draws must lie in 0\.\.2"),
        ([3], 5, [-1], r"draws must lie in 0\.\.2"),
        ([3, 1], 9, [0], "one per span, 2; got 1"),
        ([0], 9, [0], "at least 1"),
        ([2.5], 9, [0], r"lengths must be whole numbers; got \[2\.5\]"),
        ([2], 9, ["0"], r"draws must be whole numbers"),
        ([2], 9.0, [0], r"total must be a whole number; got 9\.0"),
    ],
)
def test_place_spans_refuses(lengths, total, draws, message):
    with pytest.raises(ValueError, match=message):
        place_spans(lengths, total, draws)
