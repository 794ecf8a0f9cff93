"""Messages in front of an answer, of each shape."""

import pytest

from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.prompt_messages import column_of, messages_of, of_transcript, prompt_of
from glm_jax.errors import UserError

HI = [{"role": "user", "content": "hi"}]
PROMPTS = ExamplesConfig(format="prompts")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "hi"},
        {"prompt": HI},
        {"messages": HI},
        {"conversations": [{"from": "human", "value": "hi"}]},
        {"prompt": "\n\nHuman: hi\n\nAssistant:"},
    ],
)
def test_each_shape_is_the_same_messages(record):
    assert prompt_of(record, PROMPTS) == HI


def test_the_system_comes_first_once():
    system = {"role": "system", "content": "be brief"}
    assert prompt_of({"prompt": "hi", "system": "be brief"}, PROMPTS) == [system, *HI]
    given = {"messages": [system, *HI], "system": "be long"}
    assert prompt_of(given, PROMPTS) == [system, *HI]


def test_a_key_that_was_named_must_be_there():
    assert prompt_of({"text": "hi"}, PROMPTS) is None
    named = ExamplesConfig(format="prompts", prompt_field="question")
    assert prompt_of({"question": "hi"}, named) == HI
    with pytest.raises(UserError, match="there is no key 'question'; the keys are"):
        prompt_of({"prompt": "hi"}, named)
    with pytest.raises(UserError, match=r"there is no key 'promt' .did you mean 'prompt'"):
        column_of({"prompt": 1}, "promt")


def test_a_transcript_has_turns():
    found = of_transcript("\n\nHuman: hi\n\nAssistant: Hello!\n\nHuman: bye", "prompt")
    assert [one["role"] for one in found] == ["user", "assistant", "user"]
    assert found[1]["content"] == "Hello!"
    with pytest.raises(UserError, match="'prompt' must be a transcript"):
        of_transcript("hi", "prompt")


@pytest.mark.parametrize("given", [3, [], [3]])
def test_what_holds_no_messages_is_refused(given):
    with pytest.raises(UserError, match="'prompt' must be a text, a message or a list"):
        messages_of(given, "prompt")
