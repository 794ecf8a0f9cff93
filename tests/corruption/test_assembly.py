"""Part A and part B against the published code's numbers, and against hand-written rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SPAN, Batch
from glm_jax.corruption import AssemblyOptions, assemble, assemble_prefix, place_in_documents

GOLDEN = Path(__file__).parents[1] / "golden" / "glm" / "data"
BLOCKS = json.loads((GOLDEN / "block_data.json").read_text())["cases"]
BATCHES = json.loads((GOLDEN / "batches.json").read_text())["cases"]
MASK, START, END, GMASK, SMASK, HIDDEN = 2, 5, 6, 7, 8, 9
C, E, a, b, c, d, e = 1, 0, 101, 102, 103, 104, 105
IDS = {"mask_id": MASK, "start_id": START, "end_id": END}


def mask_of(task, options):
    if not options.get("task_mask"):
        return MASK
    return {"bert": MASK, "gap_sentence": SMASK, "sentence": SMASK}.get(task, GMASK)


def options_of(case):
    """The case's options as keywords of `assemble`."""
    options, decisions = case["options"], case["decisions"]
    keywords = {"mask_id": mask_of(case["task"], options), "start_id": START, "end_id": END}
    varied = {}
    if options.get("sentinel_token"):
        later = range(1, len(decisions["span_order_in_part_b"]))
        keywords["mask_id"] = [MASK, *(256 + 2 * (i - 1) for i in later)]
        keywords["start_id"] = [START, *(257 + 2 * (i - 1) for i in later)]
        varied["span_position"] = case["max_seq_length"]
    if decisions.get("block_mask_draws"):
        draws = np.array(decisions["block_mask_draws"])
        varied["hidden"] = draws < options["block_mask_prob"]
        varied["hidden_id"] = HIDDEN
    varied["block_positions"] = options.get("block_position_encoding", True)
    varied["position_offset"] = decisions.get("position_bias", 0)
    return {**keywords, "options": AssemblyOptions(**varied)}


def check_row(fields, text, targets, loss_mask, position_ids, sep):
    np.testing.assert_array_equal(fields["tokens"], text)
    np.testing.assert_array_equal(fields["targets"], targets)
    np.testing.assert_array_equal(fields["loss_weights"], loss_mask)
    np.testing.assert_array_equal(fields["positions"], position_ids[0])
    np.testing.assert_array_equal(fields["block_positions"], position_ids[1])
    i = np.arange(len(text))
    np.testing.assert_array_equal(fields["attend_start"], 0 * i)
    np.testing.assert_array_equal(fields["attend_end"], np.maximum(sep, i + 1))
    assert {name: value.dtype for name, value in fields.items()} == {
        name: np.float32 if name == "loss_weights" else np.int32 for name in fields
    }
    Batch.from_dict({name: value[None] for name, value in fields.items()})


def test_golden_file_has_all_cases():
    assert len(BLOCKS) == 31


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case["id"])
def test_assemble_golden(case):
    fields = assemble(
        case["input"]["tokens"],
        case["input"]["spans"],
        case["decisions"]["span_order_in_part_b"],
        **options_of(case),
    )
    out = case["output"]
    check_row(
        fields, out["tokens"], out["targets"], out["loss_mask"], out["position_ids"], out["sep"]
    )


def padded(fields, out, row):
    """Compares a row of a golden batch, which is padded with zeros on its right."""
    n = len(fields["tokens"])
    names = ("text", "target", "loss_mask")
    columns = [out[name][row] for name in names]
    assert not any(any(column[n:]) for column in columns)
    positions = [line[:n] for line in out["position_id"][row]]
    check_row(fields, *(column[:n] for column in columns), positions, out["attention_mask"][row])


WHOLE_ROWS = [
    case
    for case in BATCHES
    if case["rows_in"] == case["rows_out"] == len(case["decisions"])
    and not case["options"].get("masked_lm")
    and not case["options"].get("block_mask_prob")
    and not case["options"].get("short_seq_prob")
]


@pytest.mark.parametrize("case", WHOLE_ROWS, ids=lambda case: case["id"])
def test_assemble_rows_of_golden_batches(case):
    mask_id = mask_of({"gpt": "generation"}.get(case["mode"], case["mode"]), case["options"])
    for row, (given, decision) in enumerate(zip(case["input"], case["decisions"], strict=True)):
        spans = sorted(decision["spans_as_sampled"])
        order = [spans.index(span) for span in decision["spans_in_part_b_order"]]
        fields = assemble(
            given["tokens"], spans, order, mask_id=mask_id, start_id=START, end_id=END
        )
        padded(fields, case["output"], row)


PREFIX = [case for case in BATCHES if case["mode"] == "gpt" and not case["decisions"]]


@pytest.mark.parametrize("case", PREFIX, ids=lambda case: case["id"])
def test_assemble_prefix_rows_of_golden_batches(case):
    (longest,) = [entry[2] for entry in case["rng_log"] if entry[0] == "randint"]
    for row, given in enumerate(case["input"]):
        length = min(longest, len(given["tokens"]) - 2)
        fields = assemble_prefix(
            given["tokens"],
            length,
            mask_id=GMASK,
            start_id=START,
            target_weights=given["loss_mask"][-length:],
        )
        padded(fields, case["output"], row)


def test_there_are_golden_batches_of_both_forms():
    assert len(WHOLE_ROWS) >= 10
    assert len(PREFIX) >= 3


def rows_of_draws(log):
    """(lengths as handed out, placement draws) of every row of a span batch's log of draws."""
    rows = []
    for kind, values, result in (entry for entry in log if len(entry) == 3):
        if kind == "shuffle" and not isinstance(values[0], list):
            if rows and rows[-1][1] is None:  # the second shuffle of the lengths
                rows[-1] = ([values[i] for i in result], [])
            else:
                rows.append((values, None))
        elif kind == "randrange":
            rows[-1][1].append(result)
    return rows


@pytest.mark.parametrize("name", ["batch_span_row_dropped_0", "batch_span_row_dropped_1"])
def test_rows_that_the_published_code_drops(name):
    (case,) = [case for case in BATCHES if case["id"] == name]
    decisions = iter(case["decisions"])
    dropped = 0
    for given, (lengths, draws) in zip(case["input"], rows_of_draws(case["rng_log"]), strict=True):
        spans, kept = place_in_documents(
            given["tokens"], lengths, draws, cls_id=C, eos_id=case["eos_id"]
        )
        dropped += not kept
        if kept:
            assert [list(s) for s in spans] == next(decisions)["spans_as_sampled"]
    assert dropped == case["rows_in"] - case["rows_out"] == 1


def test_docstring_example():
    fields = assemble([C, a, b, c, d, e, E], [(2, 4), (5, 6)], [1, 0], **IDS)
    expected = {
        "tokens": [C, a, MASK, d, MASK, E, START, e, START, b, c],
        "targets": [C, a, MASK, d, MASK, E, e, END, b, c, END],
        "loss_weights": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
        "positions": [0, 1, 2, 3, 4, 5, 4, 4, 2, 2, 2],
        "block_positions": [0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 3],
        "attend_start": [0] * 11,
        "attend_end": [6, 6, 6, 6, 6, 6, 7, 8, 9, 10, 11],
        "objective": [0, 0, 0, 0, 0, 0, SPAN, SPAN, SPAN, SPAN, SPAN],
    }
    assert {name: value.tolist() for name, value in fields.items()} == expected


def test_docstring_example_of_prefix():
    fields = assemble_prefix([C, a, b, c, d, E], 3, mask_id=GMASK, start_id=START)
    expected = {
        "tokens": [C, a, b, GMASK, START, c, d],
        "targets": [C, a, b, GMASK, c, d, E],
        "loss_weights": [0, 0, 0, 0, 1, 1, 1],
        "positions": [0, 1, 2, 3, 3, 3, 3],
        "block_positions": [0, 0, 0, 0, 1, 2, 3],
        "attend_start": [0] * 7,
        "attend_end": [4, 4, 4, 4, 5, 6, 7],
        "objective": [0, 0, 0, 0, DOCUMENT, DOCUMENT, DOCUMENT],
    }
    assert {name: value.tolist() for name, value in fields.items()} == expected


def test_no_spans_no_part_b():
    fields = assemble([C, a, E], [], [], **IDS)
    assert fields["tokens"].tolist() == [C, a, E]
    assert not fields["loss_weights"].any()
    assert not fields["objective"].any()


@pytest.mark.parametrize(
    ("spans", "order", "message"),
    [
        ([(1, 3), (2, 4)], [0, 1], "not overlapping"),
        ([(3, 4), (1, 2)], [0, 1], "ascending"),
        ([(5, 8)], [0], "inside the 7 tokens"),
        ([(-1, 2)], [0], "inside the 7 tokens"),
        ([(2, 2)], [0], "half-open"),
        ([(1, 2), (3, 4)], [0, 0], "permutation"),
        ([(1, 2)], [], "permutation"),
        ([(1, 2.5)], [0], r"spans must be whole numbers; got \[1, 2\.5\]"),
        ([(1, 2)], ["0"], "order must be whole numbers"),
    ],
)
def test_assemble_refuses(spans, order, message):
    with pytest.raises(ValueError, match=message):
        assemble([C, a, b, c, d, e, E], spans, order, **IDS)


def test_assemble_refuses_wrong_counts():
    one_flag = AssemblyOptions(hidden=[True], hidden_id=9)
    with pytest.raises(ValueError, match="hidden must be 2 flags, one per span token; got 1"):
        assemble([C, a, b, E], [(1, 3)], [0], **IDS, options=one_flag)
    with pytest.raises(ValueError, match="mask_id must be one id or 1, one per span"):
        assemble([C, a, b, E], [(1, 3)], [0], **{**IDS, "mask_id": [2, 3]})
    with pytest.raises(ValueError, match="hidden must come with hidden_id, an id; got -1"):
        AssemblyOptions(hidden=[True, False])


@pytest.mark.parametrize("length", [0, 4])
def test_assemble_prefix_refuses(length):
    with pytest.raises(ValueError, match=r"1\.\.3"):
        assemble_prefix([C, a, E], length, mask_id=GMASK, start_id=START)
