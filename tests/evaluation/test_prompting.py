import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.examples import Example
from glm_jax.evaluation.prompting import Prompts, before_blank, count_blanks, has_blank
from tests.evaluation.models import BLANKS, CAUSAL, SPECIAL, TOKENIZER

FILLS, GOES_ON = Prompts(TOKENIZER, BLANKS), Prompts(TOKENIZER, CAUSAL)
ONE = Example("d.jsonl, line 4", "")
START = [SPECIAL.gmask, SPECIAL.start]


def ids(text):
    return TOKENIZER.encode(text, allow_special=True)


def test_a_blank_is_filled_by_the_ids_that_stand_in_the_text():
    pair = FILLS.pair(ONE, "God said, [MASK] be light.", "let there", with_end=True)
    assert pair.prompt == [SPECIAL.cls, *ids("God said, [MASK] be light."), SPECIAL.eos]
    assert pair.answer == [*ids("God said, let there")[len(ids("God said,")) :], SPECIAL.end]
    assert not pair.cut
    # Chinese has no spaces: the answer has none either, which by itself would begin with one.
    chinese = FILLS.pair(ONE, "床前[MASK]光", "明月", with_end=False)
    assert TOKENIZER.decode([*ids("床前"), *chinese.answer]) == "床前明月"
    assert chinese.answer != TOKENIZER.encode("明月")


def test_a_prompt_without_a_blank_gets_one_at_its_end():
    pair = FILLS.pair(ONE, "God said,", "let", with_end=False)
    assert pair.prompt == [SPECIAL.cls, *ids("God said, [MASK]"), SPECIAL.eos]
    assert pair.answer == ids("let")


def test_a_causal_model_scores_the_answer_and_what_follows():
    pair = GOES_ON.pair(ONE, "God said, [MASK] be light.", "let there", with_end=True)
    assert pair.prompt == [*START, *ids("God said,")]
    assert [*pair.prompt, *pair.answer] == [*START, *ids("God said, let there be light.")]
    first = GOES_ON.pair(ONE, "[MASK] said", "God", with_end=True)
    assert (first.prompt, first.answer) == (START, ids("God said"))


def test_from_left_to_right():
    pair = FILLS.unidirectional(ONE, "God said, [MASK]", "let")
    assert pair.prompt == [SPECIAL.cls, SPECIAL.gmask, *ids("God said,")]
    with pytest.raises(UserError, match=r"line 4: read from left to right, .* goes on with 'be'"):
        FILLS.unidirectional(ONE, "God said, [MASK] be", "let")
    long = FILLS.unidirectional(ONE, "and " * 80, "let")
    assert long.cut
    # The last block position is that of the last input, of the answer but its last id.
    assert 1 + len(long.prompt) - 2 + len(long.answer) - 1 == 64


def test_long_prompts_lose_tokens_in_front_of_the_blank():
    text = "and " * 70 + "God said, [MASK] be light."
    found, cut = FILLS.blanked(ONE, text)
    assert (len(found), cut) == (64, True)
    assert found[0] == SPECIAL.cls
    whole = [*ids(text), SPECIAL.eos]
    assert found[1:] == whole[-63:]
    # Behind the blank only when nothing is left in front.
    found, cut = FILLS.blanked(ONE, "God said, [MASK]" + " and" * 90)
    assert (len(found), cut) == (64, True)
    assert found[:2] == [SPECIAL.cls, SPECIAL.mask]
    assert found[-1] == SPECIAL.eos
    with pytest.raises(UserError, match="line 4: the text from the first blank to the last does"):
        FILLS.blanked(ONE, "[MASK]" + " and" * 90 + " [MASK]")


def test_long_contexts_of_a_causal_model():
    pair = GOES_ON.pair(ONE, "and " * 90 + "[MASK] be", "let", with_end=True)
    assert pair.cut
    assert len(pair.prompt) + len(pair.answer) - 1 == 64
    assert pair.prompt[:2] == START
    with pytest.raises(UserError, match=r"line 4: .* does not fit the model's context of 64"):
        GOES_ON.pair(ONE, "[MASK]" + " and" * 90, "let", with_end=True)
    begun, cut = GOES_ON.begun("and " * 90, 10)
    assert (len(begun), cut) == (54, True)
    assert GOES_ON.begun("God said", 10) == ([*START, *ids("God said")], False)
    with pytest.raises(UserError, match="max_new_tokens=62 leaves no room for a prompt"):
        GOES_ON.begun("God", 62)


def test_columns_hold_no_special_tokens():
    bad = Example("d.jsonl, line 4", "", inserted=("fine", "a [gMASK] b"))
    with pytest.raises(UserError, match=r"line 4: 'a \[gMASK\] b' spells a special token"):
        FILLS.check_inert(bad)
    FILLS.check_inert(bad, may_hold_masks=True)
    bad = Example("d.jsonl, line 4", "", inserted=("a [MASK] <|endoftext|>",))
    with pytest.raises(UserError, match="spells a special token"):
        FILLS.check_inert(bad, may_hold_masks=True)


def test_blanks_of_a_prompt():
    assert (has_blank("a [sMASK]"), has_blank("a")) == (True, False)
    assert count_blanks("[MASK] a [gMASK]") == 2
    assert before_blank("a: [MASK] ") == "a: "
    assert before_blank("a [MASK] b") is None
    with pytest.raises(UserError, match="line 4: the prompt must have one blank; it has 2"):
        FILLS.pair(ONE, "[MASK] [MASK]", "a", with_end=True)
