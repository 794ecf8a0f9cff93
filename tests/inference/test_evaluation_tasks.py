import math

import numpy as np
import pytest

import glm_jax
from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.inference.evaluation_data import held_out
from glm_jax.inference.evaluation_tasks import TASKS

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special
CAUSAL = ModelConfig(position_encoding="rotary")


class Reader:
    """Stands for a model that has read the held-out text: what stands there is likely."""

    def __init__(self, config=None):
        self.config = config or ModelConfig()
        self.text = " ".join(" ".join(held_out("en")).split())
        self.asked = []

    def knows(self, ids, answer):
        blank = [i for i, id_ in enumerate(ids) if id_ in SPECIAL.masks]
        if self.config.position_encoding == "learned_block":
            whole = TOKENIZER.decode([*ids[: blank[-1]], *answer, *ids[blank[-1] + 1 :]], True)
        else:
            whole = TOKENIZER.decode([*ids, *answer], True)
        return whole.strip() in self.text

    def score(self, ids, answers, mask_ids, start_id):
        assert (mask_ids, start_id) == (SPECIAL.masks, SPECIAL.start)
        assert all(answer[-1] == SPECIAL.end for answer in answers)
        return [-1.0 if self.knows(ids, answer) else -2.0 for answer in answers]

    def predicts(self, prompts, answers, mask_ids, start_id):
        return [self.knows(ids, answer) for ids, answer in zip(prompts, answers, strict=True)]

    def token_log_probabilities(self, ids, bidirectional, **options):
        self.asked.append((ids, bidirectional, options))
        return np.full(len(ids) - 1, -math.log(2), np.float32)


def test_who_knows_the_text_fills_its_blanks():
    found = TASKS["cloze"](Reader(), TOKENIZER, 30)
    assert found == {"accuracy": 1.0, "chance": 0.25, "examples": 30.0}


@pytest.mark.parametrize("config", [None, CAUSAL])
def test_who_knows_the_text_ends_its_passages(config):
    assert TASKS["last_word"](Reader(config), TOKENIZER, 20) == {"accuracy": 1.0, "examples": 20.0}


@pytest.mark.parametrize("name", ["perplexity", "perplexity_bidirectional"])
def test_a_bit_a_token(name):
    reader = Reader()
    found = TASKS[name](reader, TOKENIZER, 4)
    assert found["perplexity"] == pytest.approx(2.0, rel=1e-6)
    assert found["loss"] == pytest.approx(math.log(2), rel=1e-6)
    ids = [ids for ids, _, _ in reader.asked]
    assert found["tokens"] == sum(len(text) - 1 for text in ids)
    size = sum(len(TOKENIZER.decode(text[1:]).encode()) for text in ids)
    assert found["bits_per_byte"] == pytest.approx(found["tokens"] / size, rel=1e-5)
    assert {bidirectional for _, bidirectional, _ in reader.asked} == {name != "perplexity"}
    assert reader.asked[0][2]["prefix_ids"] == [SPECIAL.cls]
    # One language and the other.
    chinese = [any(letter >= "\u4e00" for letter in TOKENIZER.decode(text)) for text in ids]
    assert chinese == [False, True, False, True]


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'cloze' needs a model that fills blanks"):
        TASKS["cloze"](Reader(CAUSAL), TOKENIZER, 3)
    for name in TASKS:
        with pytest.raises(UserError, match="examples must be at least 1; got 0"):
            TASKS[name](Reader(), TOKENIZER, 0)
