"""Rows of prompts: which there are, and how they are numbered."""

import dataclasses
import json

import numpy as np
import pytest

import glm_jax
from glm_jax.config import RolloutsConfig
from glm_jax.data.examples.prompt_rows import PromptBatch
from glm_jax.errors import UserError
from tests.rollout_runs import config_of, save_base

CAUSAL = {"position_encoding": "rotary"}
ROOMY = RolloutsConfig(group_size=4, max_new_tokens=15, reward="a.py:f")


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
    # 64 slots, of which the longest answer takes 6; its last id is no input.
    said = f"1 of more than 59 ids, which leave an answer no room: first {source} line 10"
    assert said in caplog.text
    tight = {"eval_fraction": 0.5, "sequence_length": 16}
    config = config_of(base, source, model=CAUSAL, data=tight)
    with pytest.raises(UserError, match="nothing is learnt from the split 'train'"):
        glm_jax.batches(dataclasses.replace(config, rollouts=ROOMY))
