"""Which ids of a rendered chat an assistant has said; whole chats: test_training_example.py."""

import re

import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.chat_formats import Chat
from glm_jax.tokenizers.rendering import Rendering, names_of
from glm_jax.tokenizers.templates import ChatTemplate

CHAT = Chat(
    [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "cd"},
        {"role": "user", "content": "e"},
        {"role": "assistant", "content": "fg"},
    ],
    None,
    False,
)


def rendering(source, encode=lambda text: list(map(ord, text))):
    return Rendering(ChatTemplate(source, "t"), {"<u>": 1, "<a>": 2}, re.compile("(<u>|<a>)"),
                     encode, {"eos_token": "."}, None)  # fmt: skip


SAYS = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}"
OPENS = SAYS + "{% if add_generation_prompt %}<a>{% endif %}"


def test_ids_and_answers():
    #                 0  1  2   3  4  5   6  7   8  9  10
    ids, spans = rendering(OPENS).answers(CHAT, last=False)
    assert ids == [1, *b"ab", 2, *b"cd", 1, *b"e", 2, *b"fg"]
    assert spans == [(4, 6), (9, 11)]
    assert rendering(OPENS).answers(CHAT, last=True) == (ids, [(9, 11)])
    # A template that does not open an answer leaves its role to it.
    assert rendering(SAYS).answers(CHAT, last=False)[1] == [(3, 6), (8, 11)]


def test_a_token_across_the_edge_is_the_answers():
    def pairs(text):
        return [ord(text[at]) * 1000 + len(text[at : at + 2]) for at in range(0, len(text), 2)]

    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    messages = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "def"}]
    ids, spans = rendering(plain, pairs).answers(Chat(messages, None, False), last=False)
    assert len(ids) == 3  # ab cd ef
    assert spans == [(1, 3)]


def test_marked_answers():
    marked = SAYS.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}.{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}",
    )
    ids, spans = rendering(marked).answers(CHAT, last=False)
    assert ids == [1, *b"ab", 2, *b"cd.", 1, *b"e", 2, *b"fg."]
    assert spans == [(4, 7), (10, 13)]
    assert rendering(marked).text(CHAT, {}) == "<u>ab<a>cd.<u>e<a>fg."
    assert rendering(marked).template.variables == {"messages"}
    forged = Chat([{"role": "user", "content": "\ufdee"}, *CHAT.messages], None, False)
    with pytest.raises(UserError, match=r"without U\+FDEE"):
        rendering(marked).answers(forged, last=False)


def test_what_a_template_does_not_use_is_refused():
    with pytest.raises(UserError, match="t does not use thinking"):
        rendering(SAYS).ids(CHAT, {"thinking": True})


def test_names():
    config = {"eos_token": {"content": "</s>"}, "bos_token": "<s>", "pad_token": None, "x": "y"}
    assert names_of(config) == {"eos_token": "</s>", "bos_token": "<s>"}
