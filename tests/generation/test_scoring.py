import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation.scoring import ScoredRow, blank_row, causal_row, score_rows

CASES = Path(__file__).parents[1] / "golden" / "glm" / "data" / "task_inputs.json"


def cases(*kinds):
    found = json.loads(CASES.read_text())["cases"]
    return [case for case in found if case["kind"] in kinds]


def check(row, output, size=24):
    """A row against the published one: padded on the right, scored where loss_mask is 1."""
    length = len(row.tokens)

    def padded(values):
        return [*values, *[0] * (size - len(values))]

    assert padded(row.tokens) == output["ids"]
    assert [padded(row.positions), padded(row.block_positions)] == output["position_ids"]
    assert row.prefix == output["sep"]
    first = length - len(row.answer)
    assert padded([0] * first + row.answer) == output["targets"]
    assert padded([0] * first + [1] * len(row.answer)) == output["loss_mask"]


@pytest.mark.parametrize("case", cases("cloze_input"), ids=lambda case: case["id"])
def test_rows_of_a_blank_are_the_published_ones(case):
    given = case["input"]
    ids = [1, *given["text_a"], *(given["text_b"] or [])]
    if given["add_eos"]:
        ids.append(0)
    blanks = [i for i, id_ in enumerate(ids) if id_ == given["mask_id"]]
    limit, output = given["max_seq_length"], case["output"]
    if given["answer"] is None:  # one id is looked at, whichever it is: nothing is scored
        output = {**output, "targets": [0] * limit, "loss_mask": [0] * limit}
        output["loss_mask"][len(ids)] = 1
    check(blank_row(ids, blanks[-1], 5, [], given["answer"] or [0]), output, limit)


@pytest.mark.parametrize("case", cases("unidirectional_choice_input"), ids=lambda case: case["id"])
def test_rows_from_left_to_right_are_the_published_ones(case):
    given = case["input"]
    row = blank_row([1, given["mask_id"]], 1, 5, given["text"], given["answer"])
    check(row, case["output"], given["max_seq_length"])


def test_a_causal_row_is_one_step_behind():
    row = causal_row([4, 5], [6, 7, 8])
    assert row == ScoredRow([4, 5, 6, 7], [0, 1, 2, 3], [0] * 4, 0, [6, 7, 8])


def test_scores_are_those_of_the_whole_logits(lm):
    """Nine rows of different lengths, in two calls, against `logits` of each alone."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(9):
        part_a = [1, *rng.integers(20, 128, 3 + number), 2, 0]
        rows.append(blank_row(part_a, len(part_a) - 2, 5, [], rng.integers(20, 128, 3).tolist()))
    for row, found in zip(rows, score_rows(lm.config, lm.params, rows), strict=True):
        size = 64
        places, length = np.arange(size), len(row.tokens)
        pad = [0] * (size - length)
        fields = {
            "tokens": [*row.tokens, *pad],
            "targets": [0] * size,
            "positions": [*row.positions, *pad],
            "block_positions": [*row.block_positions, *pad],
            "attend_start": [0] * size,
            "attend_end": np.where(places < length, np.maximum(row.prefix, places + 1), 0),
        }
        batch = {name: np.array([values], np.int32) for name, values in fields.items()}
        batch["loss_weights"] = np.zeros((1, size), np.float32)
        scores = np.asarray(lm.logits(batch))[0, length - 3 : length].astype(np.float64)
        scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        expected = scores[np.arange(3), row.answer]
        np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-5)
        assert found.best.tolist() == (scores.argmax(axis=-1) == row.answer).tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (causal_row([1, 2], []), "an answer is empty"),
        (causal_row([1, 2], [128]), "id 128 is outside the vocabulary of 128"),
        (blank_row([1] * 66, 3, 5, [], [7]), "66 positions does not fit the model's 65"),
        (blank_row([1, 2], 1, 5, [9] * 60, [9] * 5), "66 positions does not fit"),
    ],
)
def test_what_cannot_be_scored_is_named(lm, row, message):
    with pytest.raises(UserError, match=message):
        score_rows(lm.config, lm.params, [row])
