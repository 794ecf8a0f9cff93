"""Prompts: what is read of a file, and the ids that an answer goes on from."""

import pytest

import glm_jax
from glm_jax.config import ExamplesConfig
from glm_jax.data.examples.prompts import (
    PromptMaker,
    blank_of,
    prompt_ids,
    read_question,
)
from glm_jax.errors import UserError
from glm_jax.tokenizers.framing import blanked_ids
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES

CONFIG = ExamplesConfig(format="prompts")
ASKED = {"prompt": "Say red", "answer": "red"}


@pytest.mark.parametrize(
    "record",
    [
        ASKED,
        {"messages": [{"role": "user", "content": "Say red"}]},
        {"prompt": [{"role": "user", "content": "Say red"}], "level": 3},
        {"conversations": [{"from": "human", "value": "Say red"}]},
    ],
)
def test_the_shapes_of_a_prompt(record):
    assert read_question(record, CONFIG).messages == [{"role": "user", "content": "Say red"}]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "Say red"}, "there is no prompt: no key 'prompt' or 'messages'"),
        ({"prompt": "  "}, "the prompt is empty"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                ]
            },
            "a prompt ends where the policy is to answer",
        ),
        ({"prompt": "a", "tools": "?"}, "tools"),
    ],
)
def test_what_is_no_prompt_is_refused(record, said):
    with pytest.raises(UserError, match=said):
        read_question(record, CONFIG)


def test_a_prompt_of_a_chat_ends_where_the_assistant_speaks():
    tokenizer = glm_jax.load_tokenizer(PIECES, kind="chatglm3")
    ids = prompt_ids(read_question(ASKED, CONFIG), tokenizer)
    assert ids == tokenizer.apply_chat_template([{"role": "user", "content": "Say red"}])
    (example,) = PromptMaker(CONFIG, tokenizer, False).examples(ASKED)
    assert example.tokens.tolist() == ids
    assert example.learnt.tolist() == [False] * (len(ids) - 1) + [True]
    assert (example.prefix, example.positions[-1]) == (0, len(ids) - 1)


@pytest.mark.parametrize("kind", ["chatglm", None])
def test_a_prompt_of_a_model_that_fills_blanks_ends_in_the_start_of_its_blank(kind):
    tokenizer = glm_jax.load_tokenizer("bundled" if kind is None else ICE_TEXT, kind=kind)
    ids = prompt_ids(read_question(ASKED, CONFIG), tokenizer)
    assert ids[-2:] == [tokenizer.special.gmask, tokenizer.special.start]
    (example,) = PromptMaker(CONFIG, tokenizer, True).examples(ASKED)
    size = len(ids)
    assert example.prefix == size - 1
    assert example.positions.tolist() == [*range(size - 1), size - 2]
    assert example.block_positions.tolist() == [0] * (size - 1) + [1]


def test_a_blank_in_a_prompt_is_what_the_answer_fills():
    tokenizer = glm_jax.load_tokenizer("bundled")
    asked = {"prompt": "Noah lived [MASK] years.", "answer": "fifty"}
    (example,) = PromptMaker(CONFIG, tokenizer, True).examples(asked)
    part_a = blanked_ids(tokenizer, asked["prompt"])
    assert example.tokens.tolist() == [*part_a, tokenizer.special.start]
    blank = part_a.index(tokenizer.special.mask)
    assert example.positions.tolist() == [*range(len(part_a)), blank]
    assert example.block_positions.tolist() == [0] * len(part_a) + [1]
    assert example.prefix == len(part_a)


def test_the_blank_is_that_of_gmask_else_the_first():
    special = glm_jax.load_tokenizer("bundled").special
    mask, gmask, start = special.mask, special.gmask, special.start
    assert blank_of([500, mask, 600, gmask, start], special) == 3
    assert blank_of([500, mask, 600, mask, start], special) == 1
    for ids in ([500, 600, start], [500, mask, 600]):
        with pytest.raises(UserError, match="needs a prompt that ends in a blank's start"):
            blank_of(ids, special)
