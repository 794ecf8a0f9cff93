import json
from pathlib import Path

import pytest

from glm_jax.errors import UserError
from glm_jax.generation.windows import Window, blank_window, causal_window, windows

CASES = Path(__file__).parents[1] / "golden" / "glm" / "data" / "task_inputs.json"


def cases():
    found = json.loads(CASES.read_text())["cases"]
    return [case for case in found if case["kind"] == "lm_eval_window"]


def test_every_id_but_the_first_is_scored_once():
    assert windows(10, 6, 2) == [Window(0, 1, 6), Window(2, 6, 8), Window(4, 8, 10)]
    assert windows(6, 6, 5) == [Window(0, 1, 6)]
    assert windows(2, 100, 50) == [Window(0, 1, 2)]
    for length in range(2, 40):
        scored = [i for w in windows(length, 7, 3) for i in range(w.new, w.end)]
        assert scored == list(range(1, length))
        assert all(w.end - w.start <= 7 for w in windows(length, 7, 3))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_windows_are_the_published_ones(case):
    given, output = case["input"], case["output"]
    size, stride = given["seq_length"] - 1, given["overlapping_eval"]
    all_windows = [
        (document, window)
        for document in given["documents"]
        for window in windows(len(document), size, stride)
    ]
    ids, window = all_windows[given["index"]]
    row = blank_window(
        ids,
        window,
        prefix_ids=[1],
        mask_id=given["mask_id"],
        start_id=5,
        bidirectional=not given["unidirectional"],
    )
    length = len(row.tokens)
    pad = [0] * (given["seq_length"] + 1 - length)
    assert [*row.tokens, *pad] == output["text"]
    assert [[*row.positions, *pad], [*row.block_positions, *pad]] == output["position_id"]
    assert row.prefix == output["attention_mask"]
    scored = [0] * (length - len(row.answer)) + [1] * len(row.answer)
    assert [*scored, *pad] == output["loss_mask"]
    targets = [t for t, m in zip(output["target"], output["loss_mask"], strict=True) if m]
    assert row.answer == targets


def test_a_causal_window():
    row = causal_window(list(range(10, 20)), Window(2, 6, 8), [7, 5])
    assert row.tokens == [7, 5, 12, 13, 14, 15, 16]
    assert (row.answer, row.prefix) == ([16, 17], 0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1, 6, 2), "2 ids at least, to score the second; got 1"),
        ((9, 1, 1), "window must be at least 2; got 1"),
        ((9, 6, 6), r"stride must lie in 1..5, below window; got 6"),
        ((9, 6, 0), "got 0"),
    ],
)
def test_numbers_that_make_no_windows_are_named(numbers, message):
    with pytest.raises(UserError, match=message):
        windows(*numbers)
