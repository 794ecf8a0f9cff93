"""Blanks are special, and nothing else that a text spells."""

from pathlib import Path

import pytest

from glm_jax.errors import UserError
from glm_jax.generation.texts import with_answers
from glm_jax.serving.blank_texts import BlankText
from glm_jax.tokenizers.framing import blanked_ids
from glm_jax.tokenizers.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = [
    "The [MASK] dog ran to the [MASK].",
    "床前[MASK]光，疑是地上[MASK]",
    "[MASK] and[sMASK] then [gMASK]",
    "  two  spaces [MASK]  ",
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_commands(tokenizer, text):
    assert BlankText.read(text).ids(tokenizer) == blanked_ids(tokenizer, text.rstrip())


@pytest.mark.parametrize("text", TEXTS)
def test_answers_are_put_in_as_the_commands_do(tokenizer, text):
    read = BlankText.read(text)
    answers = [tokenizer.encode(word) for word in ("quick", "海", "often")][: len(read.blanks)]
    assert read.filled(tokenizer, answers) == with_answers(tokenizer, text, answers)


def test_letters_that_spell_special_tokens_stay_letters(tokenizer):
    parts = [(False, "a [MASK] in [CLS]"), (False, "<pad> "), (True, "[MASK]"), (False, "[gMASK].")]
    text = BlankText.of_parts(parts)
    assert text == BlankText(("a [MASK] in [CLS]<pad> ", "[gMASK]."), ("[MASK]",))
    ids, special = text.ids(tokenizer), tokenizer.special
    assert [id_ for id_ in ids if id_ < 9] == [special.cls, special.mask, special.eos]
    at = ids.index(special.mask)
    assert tokenizer.decode(ids[1:at]) == "a [MASK] in [CLS]<pad>"
    assert tokenizer.decode([special.mask, *ids[at + 1 : -1]]) == "[MASK][gMASK]."
    filled = text.filled(tokenizer, [tokenizer.encode("word")])
    assert filled == "a [MASK] in [CLS]<pad> word[gMASK]."


def test_other_spellings_in_a_plain_text_stay_letters_too(tokenizer):
    text = BlankText.read("the <|endoftext|> is [MASK] here")
    ids = text.ids(tokenizer)
    assert ids.count(tokenizer.special.eos) == 1  # that of the frame
    assert tokenizer.decode(ids[1:-1]) == "the <|endoftext|> is [MASK] here"


def test_a_last_gmask_has_no_eos_behind_it(tokenizer):
    parts = BlankText.of_parts([(False, "so [CLS] "), (True, "[gMASK]")])
    assert parts.ids(tokenizer)[-1] == tokenizer.special.gmask


def test_an_answer_may_hold_the_letters_of_a_mask(tokenizer):
    text = BlankText.read("a [MASK] b [MASK] c")
    answers = [tokenizer.encode("[MASK]"), tokenizer.encode("word")]
    assert text.filled(tokenizer, answers) == "a [MASK] b word c"


def test_a_text_without_blanks_is_refused():
    with pytest.raises(UserError, match=r"no blank in the text; write \[MASK\]"):
        BlankText.of_parts([(False, "[MASK]")]).check()
    with pytest.raises(UserError, match="surrogate"):
        BlankText.read("[MASK] \ud800").check()


def test_a_vocabulary_that_reads_masks_in_any_text():
    """ChatGLM-6B's, whose pieces they are: only the blank is one."""
    tokenizer = load_tokenizer(GOLDEN / "chatglm" / "chat")
    parts = [(False, "a [MASK] in "), (True, "[MASK]"), (False, " b [gMASK]")]
    text = BlankText.of_parts(parts)
    ids, special = text.ids(tokenizer), tokenizer.special
    assert [id_ for id_ in ids if id_ in special.masks] == [special.mask]
    assert text.filled(tokenizer, [tokenizer.encode("x")]) == "a [MASK] in x b [gMASK]"
    plain = BlankText.read("x [MASK] y")
    assert plain.ids(tokenizer) == tokenizer.encode("x [MASK] y", allow_special=True)
