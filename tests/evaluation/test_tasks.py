import math

import numpy as np
import pytest

import glm_jax
from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.evaluation.data import Blank, blanks, held_out
from glm_jax.evaluation.tasks import TASKS, fitting_prompt
from glm_jax.generation.texts import Candidate

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special
CAUSAL = ModelConfig(position_encoding="rotary")


class Reader:
    """Stands for a model that has read the held-out text: what stands there is likely."""

    def __init__(self, config=None):
        self.config = config or ModelConfig()
        self.text = " ".join(" ".join(held_out("en")).split())
        self.asked, self.prompts = [], []

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

    def fill(self, text, candidates, max_new_tokens):
        """The answer first to every other text, and as the second candidate to the rest."""
        assert (candidates, max_new_tokens) == (5, 12)
        self.prompts.append(text)
        (right,) = [one for one in blanks() if text.endswith(f"[MASK]{one.after}")]
        wrong = Candidate("", ("nothing like it",), 0.1, ())
        found = [Candidate("", (f" {right.answer} ",), 0.2, ()), *[wrong] * 4]
        return found if len(self.prompts) % 2 else [wrong, *found[:4]]

    def predicts(self, prompts, answers, mask_ids, start_id):
        return [self.knows(ids, answer) for ids, answer in zip(prompts, answers, strict=True)]

    def token_log_probabilities(self, ids, bidirectional, **options):
        self.asked.append((ids, bidirectional, options))
        return np.full(len(ids) - 1, -math.log(2), np.float32)


def test_who_knows_the_text_fills_its_blanks():
    found = TASKS["cloze"](Reader(), TOKENIZER, 30)
    assert found == {"accuracy": 1.0, "chance": 0.25, "examples": 30.0}


def test_blanks_count_what_is_first_and_what_is_among_five():
    reader, some = Reader(ModelConfig(max_positions=64)), blanks()[:6]
    found = TASKS["blanks"](reader, TOKENIZER, 6)
    assert (found["exact"], found["first_five"], found["examples"]) == (0.5, 1.0, 6.0)
    two = [" " in one.answer for one in some]
    assert found["exact_two_words"] == sum(two[::2]) / sum(two)
    assert found["exact_one_word"] == (3 - sum(two[::2])) / (6 - sum(two))
    assert all(prompt.count("[MASK]") == 1 for prompt in reader.prompts)


def test_counts_of_words_fill_the_fifty_too():
    """What a model must beat, which is told less: it finds the number of words by itself."""
    found = TASKS["blanks"](Reader(), TOKENIZER, 200)
    assert (found["unigram"], found["unigram_first_five"]) == (0.06, 0.2)
    assert (found["bigram"], found["bigram_first_five"]) == (0.32, 0.46)
    assert found["examples"] == 50.0


def test_a_prompt_loses_words_in_front_until_it_fits():
    blank = Blank("He left. The waters rose above", "the", " ark.")
    whole = "He left. The waters rose above [MASK] ark."
    size = len([SPECIAL.cls, *TOKENIZER.encode("He left. The waters rose above")]) + 4
    assert fitting_prompt(TOKENIZER, blank, 64) == whole
    short = fitting_prompt(TOKENIZER, blank, size - 2)
    assert whole.endswith(short)
    assert 0 < len(whole) - len(short) < len("He left. The")
    # The sentence behind the blank stays, whatever the room.
    assert fitting_prompt(TOKENIZER, blank, 1) == "above [MASK] ark."


@pytest.mark.parametrize("config", [None, CAUSAL])
def test_who_knows_the_text_ends_its_passages(config):
    assert TASKS["last_word"](Reader(config), TOKENIZER, 20) == {"accuracy": 1.0, "examples": 20.0}


@pytest.mark.parametrize("name", ["cloze", "last_word"])
def test_long_passages_lose_their_beginning_in_a_small_model(name):
    """Of 32 positions: what the model is asked still ends in the blank's sentence, and fits."""
    reader, prompts = Reader(ModelConfig(max_positions=32)), []
    knows = reader.knows
    reader.knows = lambda ids, answer: prompts.append(ids) or knows(ids, answer)
    assert TASKS[name](reader, TOKENIZER, 20)["accuracy"] == 1.0
    assert max(map(len, prompts)) == 32
    assert all(ids[0] == SPECIAL.cls and SPECIAL.mask in ids for ids in prompts)


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
    for name in ("blanks", "cloze"):
        with pytest.raises(UserError, match=f"'{name}' needs a model that fills blanks"):
            TASKS[name](Reader(CAUSAL), TOKENIZER, 3)
    for name in TASKS:
        with pytest.raises(UserError, match="examples must be at least 1; got 0"):
            TASKS[name](Reader(), TOKENIZER, 0)
