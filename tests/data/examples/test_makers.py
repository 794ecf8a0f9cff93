"""From an object to examples, by the kind of tokenizer and of model."""

import glm_jax
from glm_jax.config.examples import FORMATS, ExamplesConfig
from glm_jax.data.examples.makers import MAKERS, maker_of, may_have_part_a
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES

TWICE = {"prompt": "go on", "response": "no", "history": [["hi", "yes"]]}


def made(path, kind, fills_blanks, **options):
    tokenizer = glm_jax.load_tokenizer(path, kind=kind)
    maker = maker_of(ExamplesConfig(format="auto", **options), tokenizer, fills_blanks)
    return tokenizer, maker.examples(TWICE)


def answers(tokenizer, examples):
    return [tokenizer.decode(one.targets[one.learnt]) for one in examples]


def test_each_format_has_a_maker():
    assert set(MAKERS) == set(FORMATS)


def test_a_conversation_of_generation_3_is_one_example():
    tokenizer, examples = made(PIECES, "chatglm3", False, loss_on="assistant")
    assert [one.prefix for one in examples] == [0]
    assert answers(tokenizer, examples) == ["\n yes<|user|>\n no</s>"]


def test_each_answer_of_generation_1_is_an_example():
    tokenizer, examples = made(ICE_TEXT, "chatglm", True, loss_on="assistant")
    assert answers(tokenizer, examples) == ["yes<eop>", "no<eop>"]
    assert all(one.tokens[one.prefix - 1] == tokenizer.special.gmask for one in examples)
    # As published: the last answer, and the start token at the blank.
    tokenizer, examples = made(ICE_TEXT, "chatglm", True)
    assert answers(tokenizer, examples) == ["<sop> no<eop>"]
    # A model that reads from left to right has no part A.
    tokenizer, examples = made(ICE_TEXT, "chatglm", False)
    assert [one.prefix for one in examples] == [0]
    assert not examples[0].block_positions.any()


def test_a_vocabulary_without_a_chat_format():
    tokenizer, examples = made("bundled", None, True)
    assert answers(tokenizer, examples) == ["no<|endofpiece|>"]
    text = tokenizer.decode(examples[0].tokens[: examples[0].prefix])
    assert text == "[CLS]hi\nyes\ngo on [gMASK]"
    assert (examples[0].block_positions > 0).sum() == len(examples[0]) - examples[0].prefix


def test_what_may_have_a_part_a():
    kinds = {"chatglm": ICE_TEXT, "chatglm2": PIECES, "chatglm3": PIECES, None: "bundled"}
    found = {
        kind: may_have_part_a(glm_jax.load_tokenizer(path, kind=kind))
        for kind, path in kinds.items()
    }
    assert found == {"chatglm": True, "chatglm2": False, "chatglm3": False, None: True}


def test_lengths_cut():
    options = {"max_source_length": 6, "max_target_length": 4}
    _, examples = made(PIECES, "chatglm3", False, **options)
    assert [len(one) for one in examples] == [10]
    _, examples = made(ICE_TEXT, "chatglm", True, **options)
    assert [len(one) for one in examples] == [9]
    assert examples[0].prefix == 6
