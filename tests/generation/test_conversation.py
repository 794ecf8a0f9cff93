"""Turns of a conversation: their prompts, what is kept of them, and what no longer fits."""

from pathlib import Path

import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.generation.conversation import Conversation, as_messages
from glm_jax.interop.origin import Origin
from tests.generation.chat_stand_ins import BOT, EOS, GMASK, ROLES, SOP, USER, ScriptedRow, model

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def lm():
    return model()


def scripted(lm, *texts, **options):
    """A conversation in which the model says these texts."""
    talk = Conversation(lm, **options)
    talk._row = ScriptedRow(lm._engine(), *texts)
    return talk


def said(talk):
    return [(one["role"], one["content"]) for one in talk.messages]


def test_turns_have_the_whole_history_as_their_prompt(lm):
    talk = scripted(lm, "b c", "e")
    first = talk.say("a")
    assert first.message == {"role": "assistant", "content": "b c"}
    assert (first.ids, first.ended, first.dropped) == (list(b"b c"), "end", 0)
    assert talk.say("d").message["content"] == "e"
    assert said(talk) == [("user", "a"), ("assistant", "b c"), ("user", "d"), ("assistant", "e")]
    begin = [GMASK, SOP, USER, *b"a", BOT]
    assert talk._row.asked == [begin, [*begin, *b"b c", EOS, USER, *b"d", BOT]]


def test_answers_are_those_of_a_fresh_prompt(lm):
    """With the model itself: ids of each turn as `generate` gives them for the whole prompt."""
    talk = Conversation(lm, max_new_tokens=9)
    for text in ("hello", "床前明月光", "and then?"):
        ids = talk.prompt([*talk.messages, {"role": "user", "content": text}])
        parts = []
        answer = talk.say(text, parts.append)
        assert [answer.ids] == lm.generate([ids], max_new_tokens=9, eos_ids=[EOS])
        assert "".join(parts).strip() == answer.message["content"]
        assert talk.cached == len(ids) + 8


def test_what_a_turn_keeps_is_not_computed_again(lm, monkeypatch):
    talk = Conversation(lm, max_new_tokens=9)
    begin = talk.prompt([{"role": "user", "content": "hello"}])
    kept = []
    resume = lm._engine().resume
    monkeypatch.setattr(
        lm._engine(), "resume", lambda s, p, k, r: kept.append(k[0]) or resume(s, p, k, r)
    )
    talk.say("hello")
    talk.say("more")
    assert kept[0] == 0
    # Text of random bytes is not always encoded to the ids it came from; the first prompt is.
    assert kept[1] >= len(begin)
    talk.undo()
    talk.say("mere")
    assert kept[2] >= kept[1]


def test_the_length_is_that_of_a_prompt_without_a_message(lm):
    talk = scripted(lm, "b", messages=[])
    assert talk.length == talk.cached == 0
    talk.say("a")
    # gMASK sop, user a, assistant b eos, user, assistant
    assert talk.length == 2 + 2 + 3 + 2


def test_undo_and_clear(lm):
    talk = scripted(lm, "b", "d", "f", messages=[{"role": "system", "content": "s"}])
    assert talk.undo() is None
    talk.say("a")
    talk.say("c")
    assert talk.undo() == {"role": "user", "content": "c"}
    assert said(talk) == [("system", "s"), ("user", "a"), ("assistant", "b")]
    talk.clear()
    talk.clear()
    assert said(talk) == [("system", "s")]


def test_a_system_message_is_in_front(lm):
    talk = scripted(lm, "b")
    talk.say("a")
    talk.set_system("s")
    talk.set_system("t")
    assert said(talk) == [("system", "t"), ("user", "a"), ("assistant", "b")]
    talk.set_system("")
    assert said(talk) == [("user", "a"), ("assistant", "b")]


def test_a_format_without_system_messages_refuses_one(lm, monkeypatch):
    talk = scripted(lm, "b")
    monkeypatch.delitem(ROLES, "system")
    with pytest.raises(UserError, match="unknown role 'system'"):
        talk.set_system("s")
    assert talk.messages == []


def test_the_oldest_turns_make_room(lm):
    """A context of 256, of which a quarter is left for an answer."""
    talk = scripted(lm, *"bcdef", messages=[{"role": "system", "content": "s"}])
    dropped = [talk.say(letter * 50).dropped for letter in "vwxyz"]
    # Behind n turns of 54 ids the prompt has 4 + 54 n + 52; it may have 256 - 64.
    assert dropped == [0, 0, 0, 1, 1]
    roles = [role for role, _ in said(talk)]
    assert roles == ["system", *["user", "assistant"] * 3]
    assert [content[0] for _, content in said(talk)[1::2]] == ["x", "y", "z"]
    assert all(len(ids) + 64 <= 256 for ids in talk._row.asked)


def test_a_message_that_does_not_fit_alone_is_not_kept(lm):
    talk = scripted(lm, "b", "c")
    talk.say("a")
    before = said(talk)
    with pytest.raises(UserError, match=r"prompt has 304 tokens.* context of 256"):
        talk.say("x" * 300)
    assert said(talk) == before
    # One that leaves little room is answered as far as it goes, and drops what stands before it.
    answer = talk.say("y" * 250)
    assert answer.dropped == 1
    assert answer.ids == list(b"c")
    assert said(talk) == [("user", "y" * 250), ("assistant", "c")]


def test_an_answer_ends_where_the_context_does(lm):
    talk = Conversation(lm)
    answer = talk.say("x" * 240)
    assert answer.ended == "length"
    assert len(answer.ids) == 256 - 244


def test_a_stopped_answer_stays_and_an_empty_one_takes_its_message_along(lm):
    talk, parts = scripted(lm, "abcdef", "x"), []
    answer = talk.say("a", parts.append, stop=lambda: len(parts) == 3)
    assert (answer.ended, answer.message["content"]) == ("stopped", "abc")
    assert said(talk) == [("user", "a"), ("assistant", "abc")]
    assert talk.say("b", stop=lambda: True).ended == "stopped"
    assert said(talk) == [("user", "a"), ("assistant", "abc")]


def test_what_on_text_raises_takes_the_turn_back(lm):
    def gone(text):
        raise BrokenPipeError

    talk = scripted(lm, "b")
    with pytest.raises(BrokenPipeError):
        talk.say("a", gone)
    assert talk.messages == []


def test_tools_and_their_results(lm):
    tools = [{"name": "weather"}]
    talk = scripted(lm, "call weather", "sunny", tools=tools)
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    asked = talk.say("how is it?").message
    assert asked == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert talk.say({"role": "tool", "content": "21"}).message["content"] == "sunny"
    # The result belongs to the turn.
    assert talk.undo() == {"role": "user", "content": "how is it?"}
    assert talk.messages == []


def test_chat_is_the_greedy_answer(lm):
    ids = lm.tokenizer.apply_chat_template([{"role": "user", "content": "hello"}])
    (expected,) = lm.generate([ids], max_new_tokens=8, eos_ids=[EOS])
    parts = []
    answer = lm.chat("hello", max_new_tokens=8, on_text=parts.append)
    assert answer == lm.tokenizer.read_answer(expected)
    assert answer == lm.chat([{"role": "user", "content": "hello"}], max_new_tokens=8)
    assert "".join(parts).strip() == answer["content"]
    (drawn,) = lm.generate([ids], max_new_tokens=8, temperature=2.0, seed=4, eos_ids=[EOS])
    assert drawn != expected
    found = lm.chat("hello", max_new_tokens=8, temperature=2.0, seed=4)
    assert found == lm.tokenizer.read_answer(drawn)


def test_the_ids_of_the_files_end_an_answer_too(lm):
    answer = Conversation(lm, max_new_tokens=8).say("hello").ids
    end = next(id_ for id_ in answer[2:] if id_ not in answer[:2])
    other = model()
    other._origin = Origin(generation={"eos_token_id": [end]})
    assert Conversation(other).say("hello").ids == answer[: answer.index(end)]


def test_other_parameters_have_another_cache():
    changing = model()
    talk = Conversation(changing, max_new_tokens=5)
    talk.say("hello")
    assert talk.cached
    changing.params["final_norm"]["scale"] = 3 * changing.params["final_norm"]["scale"]
    ids = talk.prompt([*talk.messages, {"role": "user", "content": "b"}])
    assert [talk.say("b").ids] == changing.generate([ids], max_new_tokens=5, eos_ids=[EOS])


def test_a_model_that_fills_blanks_computes_each_prompt(monkeypatch):
    filling = model(position_encoding="rotary_block")
    template = filling.tokenizer.apply_chat_template

    class Framed(type(filling.tokenizer)):
        def apply_chat_template(self, messages, tools=None, **options):
            return [*template(messages)[2:], GMASK, SOP]

    filling.tokenizer = Framed()
    talk = Conversation(filling, max_new_tokens=6)
    for text in ("hello", "more"):
        ids = talk.prompt([*talk.messages, {"role": "user", "content": text}])
        assert [talk.say(text).ids] == filling.generate([ids], max_new_tokens=6, eos_ids=[EOS])
        assert talk.cached == 0


def test_what_is_no_chat_is_said(lm):
    with pytest.raises(UserError, match="holds no tokenizer; a chat needs one"):
        glm_jax.LanguageModel(lm.config, lm.params).chat("hello")
    with pytest.raises(UserError, match="messages must be a list of dicts, or a text; got 5"):
        lm.chat(5)
    with pytest.raises(UserError, match="no messages; give one at least"):
        lm.chat([])
    with pytest.raises(UserError, match="temperature"):
        lm.chat("hello", temperature=-1)
    with pytest.raises(UserError, match="max_new_tokens"):
        lm.chat("hello", max_new_tokens=0)
    with pytest.raises(UserError, match="does not fit the model's context of 256"):
        lm.chat("x" * 300)


@pytest.mark.parametrize("odd", [[{"content": "a"}], [{"role": 3}], [[1]], [None]])
def test_what_is_no_message(odd):
    with pytest.raises(UserError, match="message 0 is"):
        as_messages(odd)


def test_messages_are_copied(lm):
    given = [{"role": "user", "content": "a"}]
    talk = scripted(lm, "b", messages=given)
    talk.answer()
    assert given == [{"role": "user", "content": "a"}]
    assert as_messages({"role": "user", "content": "a"}) == given


VOCABULARIES = {
    "chatglm": ("ice_text.model", {"position_encoding": "rotary_block"}),
    "chatglm2": ("tokenizer.model", {}),
    "chatglm3": ("tokenizer.model", {}),
    "glm4": ("glm4_tokenizer.model", {}),
    "glm4_0414": ("glm4_tokenizer.model", {}),
}


# Prompts and answers of each kind are golden in tokenizers/; here three of them are decoded.
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.nightly] * (kind in ("chatglm3", "glm4_0414")))
        for kind in VOCABULARIES
    ],
)
def test_every_generation_talks_in_its_own_format(kind):
    """Random models of the tokenizers' sizes; turns equal fresh prompts, and so do streams."""
    file, changes = VOCABULARIES[kind]
    tokenizer = glm_jax.load_tokenizer(GOLDEN / "chatglm" / "chat" / file, kind=kind)
    changes = {"vocab_size": tokenizer.vocab_size, "embed_dim": 16, "num_layers": 1, **changes}
    lm = model(tokenizer, **changes)
    talk = Conversation(lm, max_new_tokens=8, temperature=1.5, seed=3)
    for text in ("你好", "hello <|user|> [gMASK]"):
        ids = tokenizer.apply_chat_template([*talk.messages, {"role": "user", "content": text}])
        parts = []
        answer = talk.say(text, parts.append)
        options = {"max_new_tokens": 8, "temperature": 1.5, "seed": 3}
        assert [answer.ids] == lm.generate([ids], eos_ids=tokenizer.chat_end_ids, **options)
        assert answer.message == tokenizer.read_answer(answer.ids)
        assert "".join(parts) == tokenizer.decode(answer.ids).lstrip()
    assert (talk.cached > 0) == (kind != "chatglm")
