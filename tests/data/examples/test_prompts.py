"""Prompts: what is read of a file, and the ids that an answer goes on from."""

import dataclasses
import json

import numpy as np
import pytest

import glm_jax
from glm_jax.config import ExamplesConfig, RolloutsConfig
from glm_jax.data.examples.prompts import (
    PromptBatch,
    PromptMaker,
    blank_of,
    prompt_ids,
    read_question,
)
from glm_jax.errors import UserError
from tests.rollout_runs import config_of, save_base
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES

CONFIG = ExamplesConfig(format="prompts")
ROOMY = RolloutsConfig(group_size=4, max_new_tokens=15, reward="a.py:f")
CAUSAL = {"position_encoding": "rotary"}
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


def test_the_blank_is_that_of_gmask_else_the_first():
    special = glm_jax.load_tokenizer("bundled").special
    mask, gmask, start = special.mask, special.gmask, special.start
    assert blank_of([500, mask, 600, gmask, start], special) == 3
    assert blank_of([500, mask, 600, mask, start], special) == 1
    for ids in ([500, 600, start], [500, mask, 600]):
        with pytest.raises(UserError, match="needs a prompt that ends in a blank's start"):
            blank_of(ids, special)


def test_a_stream_of_prompts(tmp_path):
    """20 prompts, four fifths of them trained; a cycle of 2 x 8 rows, 4 answers each, asks 4."""
    base = save_base(tmp_path / "base")
    source = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"Say {n}", "answer": str(n)} for n in range(20)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = config_of(base, source, model=CAUSAL, rollouts={"batches": 2, "group_size": 4})
    stream = glm_jax.batches(config)
    batch = next(stream)
    assert isinstance(batch, PromptBatch)
    assert batch.tokens.shape == (4, 64 - 6 + 1)  # 2 x 8 / 4 prompts; room for 6 new tokens
    tokenizer = glm_jax.load_tokenizer(str(base))
    halves = [glm_jax.batches(config, "train", one, 2) for one in (0, 1)]
    both = [next(half) for half in halves]
    assert [ids for half in both for ids in half.ids] == batch.ids
    assert np.concatenate([half.numbers for half in both]).tolist() == batch.numbers.tolist()
    said = [tokenizer.decode(ids) for ids in batch.ids]
    assert all("Say" in text for text in said)
    # The same prompt has the same number in each epoch.
    known = dict(zip(map(tuple, batch.ids), batch.numbers.tolist(), strict=True))
    for _ in range(20):
        later = next(stream)
        for ids, number in zip(later.ids, later.numbers.tolist(), strict=True):
            assert known.setdefault(tuple(ids), number) == number
    assert sorted(known.values()) == list(range(len(known)))


def test_prompts_that_leave_no_room_are_left_out_and_named(tmp_path, caplog):
    base, source = save_base(tmp_path / "base"), tmp_path / "prompts.jsonl"
    lines = [{"prompt": "Say " * n} for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 200)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = config_of(base, source, model=CAUSAL, data={"eval_fraction": 0.5})
    streams = [glm_jax.batches(config, split) for split in ("train", "eval")]
    assert sum(stream.num_rows for stream in streams) == 9
    assert f"without an answer after the cut: first {source} line 10" in caplog.text
    tight = {"eval_fraction": 0.5, "sequence_length": 16}
    config = config_of(base, source, model=CAUSAL, data=tight)
    with pytest.raises(UserError, match="nothing is learnt from the split 'train'"):
        glm_jax.batches(dataclasses.replace(config, rollouts=ROOMY))
