import pytest
from pydantic import ValidationError

from glm_jax.serving.protocol import ChatRequest, CompletionRequest

USER = {"role": "user", "content": "a"}


def chat(**fields):
    return ChatRequest(**{"messages": [USER], **fields})


def message(**fields):
    return chat(messages=[fields]).messages[0].as_dict()


def test_content_is_a_text_or_parts_of_text():
    assert message(role="user", content="ab") == {"role": "user", "content": "ab"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert message(role="user", content=parts) == {"role": "user", "content": "ab"}
    assert message(role="developer", content="x")["role"] == "system"


def test_an_image_is_refused_by_name():
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(ValidationError, match=r"part 1 .*'image_url'; this model takes text alone"):
        message(role="user", content=[{"type": "text", "text": "a"}, part])


def test_an_answer_of_the_server_is_taken_back():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    given = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    assert message(**given) == {"role": "assistant", "tool_calls": [call]}
    result = {"role": "tool", "content": "3", "tool_call_id": "call_1"}
    assert message(**result) == result


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stop": ["a"] * 5}, "at most 4 texts"),
        ({"stop": [""]}, "1 to 500 characters"),
        ({"stop": [1]}, "a text or a list of texts"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"n": True}, "valid integer"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_tokens": -1}, "greater than or equal to 0"),
        ({"max_tokens": 10**30}, "less than or equal to 2147483647"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ: 3, 4"),
        ({"temperature": -0.1}, "greater than or equal to 0"),
        ({"temperature": "1"}, "valid number"),
        ({"top_p": 0}, "greater than 0"),
        ({"top_p": 1.5}, "less than or equal to 1"),
        ({"top_k": -2}, "greater than or equal to -1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"stream_options": {"include_usage": True}}, "goes with stream=true"),
        ({"top_logprobs": 3}, "goes with logprobs=true"),
        ({"logprobs": True, "top_logprobs": 21}, "less than or equal to 20"),
        ({"tool_choice": "required"}, '"none" or "auto"'),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, '"none" or "auto"'),
        ({"tools": [{"type": "retrieval"}]}, "must|should"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "False"),
        ({"messages": [{"role": "assistant"}]}, "must have a content"),
        ({"messages": [{**USER, "tool_calls": []}]}, ""),
    ],
)
def test_what_is_out_of_range_is_refused(fields, said):
    if not said:
        assert chat(**fields)
        return
    with pytest.raises(ValidationError, match=said):
        chat(**fields)


def test_stop_strings_are_a_list():
    assert chat().stop == []
    assert chat(stop=None).stop == []
    assert chat(stop="x").stop == ["x"]
    assert chat(stop=["x", "y"]).stop == ["x", "y"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_prompts_have_one_form(prompt, expected):
    assert CompletionRequest(prompt=prompt).prompt == expected


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], [True], [[1], "a"], 3, None, {}, [2**40]])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValidationError, match="prompt must be a text, a list of texts"):
        CompletionRequest(prompt=prompt)


def test_best_of_is_n_or_nothing():
    assert CompletionRequest(prompt="a", best_of=1)
    assert CompletionRequest(prompt="a", n=3, best_of=3)
    with pytest.raises(ValidationError, match="best_of must be n=1"):
        CompletionRequest(prompt="a", best_of=2)
    with pytest.raises(ValidationError, match="less than or equal to 5"):
        CompletionRequest(prompt="a", logprobs=6)


def test_docs_show_all_forms_of_a_field():
    schema = CompletionRequest.model_json_schema()["properties"]
    assert len(schema["prompt"]["anyOf"]) == 4
    assert schema["stop"]["anyOf"][0] == {"type": "string"}
