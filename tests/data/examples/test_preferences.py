"""Pairs of every shape as a prompt and two answers, as examples, and what is refused."""

import json
import re

import pytest

import glm_jax
from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.preferences import PreferenceMaker, read_pair
from glm_jax.errors import UserError
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES, RANKS

HI = {"role": "user", "content": "hi"}
YES, NO = ({"role": "assistant", "content": text} for text in ("yes", "no"))
PLAIN = {"prompt": "hi", "chosen": "yes", "rejected": "no"}


def read(record, **options):
    return read_pair(record, ExamplesConfig(format="preferences", **options))


@pytest.mark.parametrize(
    "record",
    [
        PLAIN,
        {"prompt": "hi", "chosen": " yes", "rejected": " no\n"},
        {"prompt": [HI], "chosen": [YES], "rejected": [NO]},
        {"chosen": [HI, YES], "rejected": [HI, NO]},
        {"messages": [HI], "chosen": YES, "rejected": NO},
        {"messages": [HI], "chosen": "yes", "rejected": "no"},
        {"prompt": [HI], "chosen": [HI, YES], "rejected": [HI, NO]},
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {"chosen": "hi yes", "rejected": "hi no"},
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: yes",
            "rejected": "\n\nHuman: hi\n\nAssistant: no",
        },
        {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " yes", "rejected": " no"},
    ],
)
def test_each_shape_is_one_pair(record):
    pair = read(record)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.tools) == ([HI], YES, NO, None)


def test_longer_prompts_and_a_system():
    turns = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "
    pair = read({"chosen": turns + "yes", "rejected": turns + "no"})
    assert [one["content"] for one in pair.prompt] == ["a", "b", "c"]
    pair = read({**PLAIN, "system": "be kind"})
    assert [one["role"] for one in pair.prompt] == ["system", "user"]
    named = {"question": "hi", "good": "yes", "bad": "no"}
    options = {"prompt_field": "question", "chosen_field": "good", "rejected_field": "bad"}
    assert read(named, **options).chosen == YES
    # Pairs of one prompt are of one split, whatever their answers are.
    assert read(PLAIN).content == read({**PLAIN, "chosen": "maybe"}).content


def test_a_margin_is_a_number_of_the_pair():
    assert read(PLAIN).margin is None
    assert read({**PLAIN, "by": 2}).margin is None  # nothing names the column
    assert read({**PLAIN, "by": 2}, margin_field="by").margin == 2.0
    assert read({**PLAIN, "by": -0.5}, margin_field="by").margin == -0.5
    for value in ("2", None, True, float("inf"), [1]):
        with pytest.raises(UserError, match="'by' must be a number, the margin of the pair; got"):
            read({**PLAIN, "by": value}, margin_field="by")
    with pytest.raises(UserError, match="there is no key 'by'"):
        read(PLAIN, margin_field="by")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "hi", "chosen": "yes"}, "there is no key 'rejected'; the keys are"),
        ({**PLAIN, "rejected": "yes"}, "'chosen' and 'rejected' are the same answer: 'yes'"),
        ({**PLAIN, "rejected": " "}, "'rejected' is an empty answer"),
        ({**PLAIN, "chosen": []}, "'chosen' must be a text, a message or a list of messages"),
        ({**PLAIN, "chosen": 3}, "'chosen' must be a text, a message or a list of messages"),
        ({**PLAIN, "chosen": [YES, NO]}, "'chosen' must be one message of the assistant"),
        ({**PLAIN, "chosen": [HI]}, "'chosen' must be one message of the assistant"),
        ({"prompt": [HI, YES], "chosen": "a", "rejected": "b"}, None),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "'prompt' must be a text, a message"),
        ({"chosen": [YES], "rejected": [NO]}, "there is no prompt in front of the two answers"),
        ({"chosen": "yes", "rejected": "no"}, "there is no prompt: 'chosen' and 'rejected' begin"),
        (
            {"chosen": [HI, YES], "rejected": [{**HI, "content": "ho"}, NO]},
            "must have the same messages up to their last",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "b"},
            "'rejected' must be a transcript that begins with",
        ),
        ({**PLAIN, "prompt": [{"role": "assistant", "content": "a"}]}, "roles are out of order"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(record, said):
    if said is None:  # an answer may follow an answer, as behind a call of a tool
        assert len(read(record).prompt) == 2
        return
    with pytest.raises(UserError, match=re.escape(said)):
        read(record)


def made(path, kind, fills_blanks, record=PLAIN, **options):
    tokenizer = glm_jax.load_tokenizer(path, kind=kind)
    config = ExamplesConfig(format="preferences", **options)
    return tokenizer, PreferenceMaker(config, tokenizer, fills_blanks).examples(record)


@pytest.mark.parametrize(
    ("path", "kind", "fills_blanks", "said"),
    [
        (ICE_TEXT, "chatglm", True, ["yes<eop>", "no<eop>"]),
        (PIECES, "chatglm2", False, ["yes</s>", "no</s>"]),
        (PIECES, "chatglm3", False, ["\n yes</s>", "\n no</s>"]),
        (RANKS, "glm4", False, ["yes<|user|>", "no<|user|>"]),
        ("bundled", None, True, ["yes<|endofpiece|>", "no<|endofpiece|>"]),
    ],
)
def test_each_generation_writes_them_in_its_format(path, kind, fills_blanks, said):
    """What is learnt is the answer and its end; what precedes it is the same of both."""
    tokenizer, (chosen, rejected) = made(path, kind, fills_blanks)
    found = [tokenizer.decode(one.targets[one.learnt].tolist()) for one in (chosen, rejected)]
    assert [text.strip(" ") for text in found] == said
    first = int(chosen.learnt.argmax())
    assert chosen.tokens[: first + 1].tolist() == rejected.tokens[: first + 1].tolist()
    assert (chosen.prefix > 0) == fills_blanks
    assert all(one.learnt[first:].all() for one in (chosen, rejected))


def test_answers_that_a_cut_makes_equal_or_empty_are_refused():
    record = {"prompt": "hi", "chosen": "a b c d e f one", "rejected": "a b c d e f two"}
    lengths = {"max_source_length": 20, "max_target_length": 4}
    with pytest.raises(UserError, match="'chosen' and 'rejected' have the same tokens"):
        made(ICE_TEXT, "chatglm", True, record, **lengths)
    long = {**PLAIN, "prompt": "hi " * 40}
    with pytest.raises(UserError, match="the prompt leaves no token of an answer"):
        made(PIECES, "chatglm3", False, long, **lengths)


def test_a_bad_line_is_named_with_its_file(tmp_path):
    from glm_jax.config import Config, DataConfig, ModelConfig, PreferencesConfig, TrainConfig
    from glm_jax.data.examples.building import build_store

    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (PLAIN, {**PLAIN, "chosen": "no"})))
    config = Config(
        model=ModelConfig(vocab_size=7168),
        data=DataConfig(source=str(path)),
        examples=ExamplesConfig(format="preferences"),
        train=TrainConfig(loss="dpo"),
        preferences=PreferencesConfig(reference_free=True),
    )
    with pytest.raises(UserError, match=r"a\.jsonl line 2: 'chosen' and 'rejected' are the same"):
        build_store(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()
