"""Filled blanks against the published input builder, and against what the commands make."""

import json
from pathlib import Path

import numpy as np
import pytest

import glm_jax
from glm_jax.corruption import assemble
from glm_jax.data.examples.blanks import Blanks, Filled, cloze_example
from glm_jax.errors import UserError
from glm_jax.generation.texts import blanked_ids, causal_prefix
from glm_jax.special_tokens import SpecialTokens

CASES = json.loads(
    (Path(__file__).parents[2] / "golden" / "glm" / "data" / "task_inputs.json").read_text()
)
IDS = CASES["special_ids"]
SPECIAL = SpecialTokens(
    mask=IDS["MASK"],
    gmask=IDS["gMASK"],
    smask=IDS["sMASK"],
    start=IDS["sop"],
    end=IDS["eop"],
    cls=IDS["CLS"],
    eos=IDS["eos/pad"],
    pad=IDS["eos/pad"],
)
CLOZES = [
    case
    for case in CASES["cases"]
    if case["kind"] == "cloze_input" and case["input"]["answer"] is not None
]
TOKENIZER = glm_jax.load_tokenizer("bundled")
GREAT = Filled("The day was ", "[MASK]", " and long.", "great")


@pytest.mark.parametrize("case", CLOZES, ids=[case["id"] for case in CLOZES])
def test_the_published_input_of_one_blank(case):
    given, expected = case["input"], case["output"]
    text = [*given["text_a"], *(given["text_b"] or [])]
    made = cloze_example(text, given["answer"], SPECIAL, frame=True, eos=given["add_eos"])
    size = len(made)
    assert made.tokens.tolist() == expected["ids"][:size]
    assert not any(expected["ids"][size:])
    assert made.prefix == expected["sep"]
    assert [made.positions.tolist(), made.block_positions.tolist()] == [
        row[:size] for row in expected["position_ids"]
    ]
    assert made.learnt.tolist() == [bool(one) for one in expected["loss_mask"][:size]]
    targets = np.array(expected["targets"][:size])
    assert made.targets[made.learnt].tolist() == targets[made.learnt].tolist()


def test_there_are_ten_published_ones():
    assert len(CLOZES) == 10
    assert any(case["input"]["text_a"].count(7) == 2 for case in CLOZES)  # the last blank is filled


def test_a_filled_blank_is_a_row_of_pretraining():
    """The whole text with the answer cut out of it."""
    made = Blanks(TOKENIZER, True).example(GREAT)
    special, whole = TOKENIZER.special, "The day was great and long."
    ids = [special.cls, *TOKENIZER.encode(whole), special.eos]
    start = ids.index(TOKENIZER.encode("great")[0])
    assert len(TOKENIZER.encode("great")) == 1
    row = assemble(
        ids,
        [(start, start + 1)],
        [0],
        mask_id=special.mask,
        start_id=special.start,
        end_id=special.end,
    )
    for name in ("tokens", "positions", "block_positions"):
        assert getattr(made, name).tolist() == row[name].tolist()
    assert made.learnt.tolist() == (row["loss_weights"] > 0).tolist()
    assert made.targets[made.learnt].tolist() == row["targets"][made.learnt].tolist()


def test_prompts_are_those_of_the_commands():
    text = "The day was [MASK] and long."
    assert Blanks(TOKENIZER, True).prompt(GREAT) == blanked_ids(TOKENIZER, text)
    prompt = Blanks(TOKENIZER, False).prompt(GREAT)
    assert prompt == [*causal_prefix(TOKENIZER), *TOKENIZER.encode("The day was")]


def test_a_causal_model_learns_the_answer_and_what_is_behind():
    made = Blanks(TOKENIZER, False).example(GREAT)
    ids = [*causal_prefix(TOKENIZER), *TOKENIZER.encode("The day was great and long.")]
    assert [*made.tokens.tolist(), made.targets[-1]] == ids
    learnt = made.targets[made.learnt].tolist()
    assert TOKENIZER.decode(learnt).strip() == "great and long."
    assert made.prefix == 0


def test_an_answer_of_several_tokens_is_cut_behind():
    filled = Filled("It was ", "[MASK]", ".", "a very long journey home")
    answer = TOKENIZER.encode(" a very long journey home"[1:])
    assert len(answer) > 4
    whole = Blanks(TOKENIZER, True).example(filled)
    assert whole.targets[whole.learnt].tolist() == [*answer, TOKENIZER.special.end]
    short = Blanks(TOKENIZER, True).example(filled, most=4)
    assert short.targets[short.learnt].tolist() == answer[:4]


def test_refusals():
    with pytest.raises(UserError, match="must have a blank"):
        cloze_example([20, 21], [30], SPECIAL, frame=True, eos=True)
    with pytest.raises(UserError, match="must have an answer"):
        cloze_example([20, 2], [], SPECIAL, frame=True, eos=True)
    with pytest.raises(UserError, match=r"'see \[MASK\]' spells a special token"):
        Blanks(TOKENIZER, True).check("see [MASK]")
    Blanks(TOKENIZER, True).check("see [mask]")
