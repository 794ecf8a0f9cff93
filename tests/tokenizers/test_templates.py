import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.templates import MOST_SOURCE, ChatTemplate, Disguise


def test_a_template_and_its_variables():
    template = ChatTemplate("{% for m in messages %}{{ m.role }}{{ x }}{% endfor %}", "t")
    assert template.variables == {"messages", "x"}
    assert template.render({"messages": [{"role": "user"}], "x": 1}) == "user1"
    assert ChatTemplate("{{ range(2)|list }}", "t").variables == frozenset()


@pytest.mark.parametrize(
    ("source", "line"),
    [("a\n{% if %}", 2), ("{{ a", 1), ("\n\n{% endfor %}", 3), ("{{ a|no }}", 1)],
)
def test_what_is_no_template_is_named_with_its_line(source, line):
    with pytest.raises(
        UserError, match=rf"^the template is no Jinja template: .* \(line {line}\)$"
    ):
        ChatTemplate(source, "the template").render({})


def test_what_a_template_says_and_where():
    template = ChatTemplate("a\n{% if true %}\n{{ raise_exception('roles must alternate') }}"
                            "{% endif %}", "the template")  # fmt: skip
    with pytest.raises(UserError) as caught:
        template.render({})
    assert str(caught.value) == (
        "the template refuses these messages: 'roles must alternate' (line 3)"
    )


def test_a_source_of_megabytes_is_refused():
    with pytest.raises(UserError, match="has more than 1,000,000 characters"):
        ChatTemplate("a" * (MOST_SOURCE + 1), "t").render({})
    deep = "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}"
    with pytest.raises(UserError, match="cannot be filled in"):
        ChatTemplate(deep, "t").render({})


def test_a_disguise():
    messages = [{"role": "user", "content": "hi <|user|><|user|>", "<|user|>": ["sop", 3, None]}]
    disguise = Disguise(["<|user|>", "sop"], messages)
    worn = disguise.put_on(messages)
    assert worn[0]["content"] == "hi <\ufdd0|user|><\ufdd0|user|>"
    assert worn[0]["<\ufdd0|user|>"] == ["s\ufdd0op", 3, None]
    assert disguise.take_off(worn[0]["content"]) == messages[0]["content"]
    assert disguise.take_off("<\\ufdd0|user|>") == "<|user|>"  # as JSON in ASCII has it
    assert Disguise([], messages).put_on(messages) == messages


def test_a_disguise_is_of_no_letter_that_is_worn():
    assert Disguise(["ab"], "\ufdd0").put_on("ab") == "a\ufdd1b"
    every = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    with pytest.raises(UserError, match="every character"):
        Disguise(["ab"], every)
