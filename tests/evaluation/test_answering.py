import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation import answering
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.task_spec import Spec
from tests.evaluation.models import BLANKS, CAUSAL, SPECIAL, TOKENIZER, Oracle, random_model
from tests.generation.chat_stand_ins import model as chat_model

FILL = Spec("fill", "d", prompt="{text}", metrics=("exact",), max_new_tokens=8)


def spec(kind="generate", **values):
    metrics = values.pop("metrics", ("exact_match", "f1"))
    return Spec(kind, "d", prompt="Q: {text} A:", metrics=metrics, max_new_tokens=8, **values)


def line(answer, text="In the beginning"):
    return ("d.jsonl, line 2", {"text": text, "answer": answer})


def asked(kind, of, lines, lm):
    """The outcomes of examples, each prepared for the model's shape."""
    examples = {"text": answering.example, "blanks": answering.example_of_blanks}
    examples["chat"] = answering.example_of_chat
    prepare = getattr(answering, f"prepare_{kind}")
    some = [prepare(Prompts(lm.tokenizer, lm.config), of, examples[kind](of, one)) for one in lines]
    return getattr(answering, f"ask_{kind}")(lm, of, some), some


@pytest.mark.parametrize("config", [BLANKS, CAUSAL])
def test_a_generated_text_is_compared_with_right_ones(config):
    lm = Oracle(config)
    lm.knows("beginning", "God made. And then")
    lm.knows("end", "the man")
    of = spec(stop=(".", "\n"), decoding={"num_beams": 2})
    lines = [line(["He made", "God made"]), line("the man went", "The end")]
    (first, second), some = asked("text", of, lines, lm)
    assert first.answer == "God made"
    assert {name: row[0] for name, row in first.rows.items()} == {"exact_match": 1.0, "f1": 1.0}
    assert second.rows["f1"].tolist() == [pytest.approx(2 * 1 / 3), 1.0]
    assert lm.asked[0][0] == 8
    assert lm.asked[0][-1] == {"num_beams": 2}
    ids = TOKENIZER.encode("Q: In the beginning A:")
    if config is CAUSAL:
        assert some[0].prompt == [SPECIAL.gmask, SPECIAL.start, *ids]
    else:
        # [gMASK] at the end: no end of the text behind it.
        assert some[0].prompt == [SPECIAL.cls, *ids, SPECIAL.gmask]


@pytest.mark.parametrize("causal", [False, True])
def test_answers_are_those_of_the_model_in_any_order(causal):
    """A random model; the text is what `lm.complete` or `lm.fill_blanks` says of one prompt."""
    lm = random_model(causal)
    of = spec(metrics=("exact",))
    texts = ["In the beginning God made the light", "A day", "Noah lived " * 4]
    outcomes, some = asked("text", of, [line("x", text) for text in texts], lm)
    for text, outcome, one in zip(texts, outcomes, some, strict=True):
        if causal:
            assert outcome.answer == lm.complete(f"Q: {text} A:", max_new_tokens=8).strip()
        else:
            (ids,) = lm.fill_blanks(one.prompt, max_new_tokens=8)
            assert outcome.answer == TOKENIZER.decode(ids, skip_special=True).strip()


def test_a_causal_model_goes_on_from_a_blank_at_the_end_alone():
    prompts = Prompts(TOKENIZER, CAUSAL)
    one = answering.example(spec(), line("x", "a"))
    end = Spec("generate", "d", prompt="{text} [gMASK]", max_new_tokens=8)
    found = answering.prepare_text(prompts, end, answering.example(end, line("x", "a")))
    assert found.prompt == [SPECIAL.gmask, SPECIAL.start, *TOKENIZER.encode("a")]
    middle = Spec("generate", "d", prompt="[MASK] {text}")
    with pytest.raises(UserError, match="line 2: a causal model continues a prompt; this one has"):
        answering.prepare_text(prompts, middle, answering.example(middle, line("x")))
    assert one.inserted == ("a",)
    two = Spec("generate", "d", prompt="[MASK] {text} [MASK]")
    with pytest.raises(UserError, match="a prompt to generate from has one blank"):
        answering.prepare_text(Prompts(TOKENIZER, BLANKS), two, answering.example(two, line("x")))
    long = Spec("generate", "d", prompt="{text}", max_new_tokens=65)
    with pytest.raises(UserError, match="max_new_tokens=65 does not fit the model; at most 64"):
        answering.prepare_text(Prompts(TOKENIZER, BLANKS), long, answering.example(long, line("x")))


def test_blanks_are_filled_together():
    lm = Oracle()
    lm.knows("beginning", "God|the light")
    lines = [
        line(["God", "the light"], "In the beginning [MASK] made [MASK]."),
        line(["He", "the light"], "In the beginning [MASK] made [MASK]!"),
    ]
    (first, second), _ = asked("blanks", FILL, lines, lm)
    assert (first.answer, first.rows["exact"].tolist()) == ("God | the light", [1.0, 1.0])
    assert second.rows["exact"].tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match=r"line 2: as many answers as blanks .* has 1 for 2"):
        answering.example_of_blanks(FILL, line("God", "[MASK] [MASK]"))
    with pytest.raises(UserError, match="'answer' has 1 for 0"):
        answering.example_of_blanks(FILL, line("God", "no blank"))
    one = answering.example_of_blanks(FILL, line("God", "a [MASK]"))
    with pytest.raises(UserError, match="the kind 'fill' needs a model that fills blanks"):
        answering.prepare_blanks(Prompts(TOKENIZER, CAUSAL), FILL, one)


def test_the_first_k_are_those_of_lm_fill():
    lm = random_model()
    text = "In the beginning [MASK] made the light."
    best = [one.answers[0] for one in lm.fill(text, candidates=3, max_new_tokens=4)]
    of = Spec(
        "fill", "d", prompt="{text}", metrics=("exact", "first_2", "first_3"), max_new_tokens=4
    )
    (outcome,), _ = asked("blanks", of, [line(best[2], text)], lm)
    assert outcome.answer == best[0]
    assert [outcome.rows[name][0] for name in of.metrics] == [0.0, 0.0, 1.0]


class Chats:
    """The bundled tokenizer with a chat format."""

    special, frames_texts, carries_spaces = SPECIAL, True, True

    def encode(self, text, allow_special=False):
        return TOKENIZER.encode(text, allow_special)

    def decode(self, ids, skip_special=False):
        return TOKENIZER.decode(ids, skip_special)

    def apply_chat_template(self, messages, **_):
        if messages[-1]["role"] != "user":
            raise UserError("the last message must be the user's")
        text = "".join(f"{one['role']}: {one['content']}\n" for one in messages)
        return TOKENIZER.encode(f"{text}assistant:")

    def read_answer(self, ids, tools=None):
        return {"role": "assistant", "content": TOKENIZER.decode(ids)}


def test_messages_are_answered_in_the_chat_format():
    lm = Oracle(CAUSAL, Chats())
    lm.knows("user: hello", "good morning")
    lm.knows("bye", "farewell")
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
    ]
    of = Spec("chat", "d", messages="talk", metrics=("exact",), max_new_tokens=8)
    where = "d.jsonl, line 1"
    lines = [
        (where, {"talk": messages[:1], "answer": "good morning"}),
        (where, {"talk": messages, "answer": "farewell"}),
    ]
    lm.said = dict(reversed(lm.said.items()))
    outcomes, some = asked("chat", of, lines, lm)
    assert [one.rows["exact"][0] for one in outcomes] == [1.0, 1.0]
    assert some[0].prompt == TOKENIZER.encode("user: hello\nassistant:")
    assert lm.asked[0][:2] == (8, [SPECIAL.eos])
    alone = Spec("chat", "d", prompt="{text}!", metrics=("exact",))
    one = answering.example_of_chat(alone, line("x", "hello"))
    assert one.messages == ({"role": "user", "content": "hello!"},)


def test_chats_that_are_none():
    of = Spec("chat", "d", messages="talk", metrics=("exact",))
    where, prompts = "d.jsonl, line 1", Prompts(Chats(), CAUSAL)
    with pytest.raises(UserError, match=r"line 1: 'talk' must be a list of messages; 'hi'"):
        answering.example_of_chat(of, (where, {"talk": "hi", "answer": "x"}))
    with pytest.raises(UserError, match="line 1: "):
        answering.example_of_chat(of, (where, {"talk": [{"content": 3}], "answer": "x"}))
    with pytest.raises(UserError, match=r"has prompt = \.\. or messages = \.\., one of both"):
        answering.example_of_chat(Spec("chat", "d"), (where, {"answer": "x"}))
    said = [{"role": "assistant", "content": "hi"}]
    one = answering.example_of_chat(of, (where, {"talk": said, "answer": "x"}))
    with pytest.raises(UserError, match="line 1: the last message must be the user's"):
        answering.prepare_chat(prompts, of, one)
    said = [{"role": "user", "content": "hi " * 90}]
    one = answering.example_of_chat(of, (where, {"talk": said, "answer": "x"}))
    with pytest.raises(
        UserError, match=r"line 1: the messages of .* do not fit the model's context"
    ):
        answering.prepare_chat(prompts, of, one)
    with pytest.raises(UserError, match="has no chat format"):
        answering.prepare_chat(Prompts(TOKENIZER, CAUSAL), of, one)


def test_an_answer_in_a_batch_is_that_of_lm_chat():
    lm = chat_model()
    of = Spec("chat", "d", prompt="{text}", metrics=("exact",), max_new_tokens=6)
    texts = ["abc", "what", "a longer message"]
    outcomes, _ = asked("chat", of, [line("x", text) for text in texts], lm)
    for text, outcome in zip(texts, outcomes, strict=True):
        said = lm.chat(text, max_new_tokens=6)["content"]
        assert outcome.answer == said.strip()
