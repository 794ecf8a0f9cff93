import base64

import numpy as np
import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.tokenizers.glm4 import SPECIAL, is_ranks, joined, read_ranks
from tests.tokenizers.golden_chat import RANKS, user, vectors

GOLDEN = vectors("glm4_chat")


@pytest.fixture(scope="module")
def tokenizer():
    return glm_jax.load_tokenizer(RANKS)


@pytest.fixture(scope="module")
def of_0414():
    return glm_jax.load_tokenizer(RANKS, kind="glm4_0414")


@pytest.mark.parametrize("row", GOLDEN["encode"], ids=lambda row: repr(row["text"][:12]))
def test_golden_ids_and_texts(tokenizer, row):
    assert tokenizer.encode(row["text"]) == row["ids"]
    assert tokenizer.decode(row["ids"]) == row["decoded"]


@pytest.mark.parametrize("index", range(len(GOLDEN["chat"])))
def test_golden_prompts(tokenizer, index):
    row = GOLDEN["chat"][index]
    assert tokenizer.apply_chat_template(row["messages"]) == row["input_ids"]
    assert tokenizer.apply_chat_template(row["messages"], tokenize=False) == row["text"]
    code = tokenizer.apply_chat_template(row["messages"], tokenize=False, line_before_tools=True)
    assert code == row.get("text_literal_newlines", row["text"])


@pytest.mark.parametrize("index", range(len(GOLDEN["chat_0414"])))
def test_golden_prompts_of_0414(of_0414, index):
    row = GOLDEN["chat_0414"][index]
    messages, tools = row["messages"], row["tools"]
    assert of_0414.apply_chat_template(messages, tools) == row["input_ids"]
    assert of_0414.apply_chat_template(messages, tools, tokenize=False) == row["text"]


def test_golden_whole_and_parts(tokenizer):
    row = GOLDEN["whole_vs_parts"]
    prompt = tokenizer.apply_chat_template(user(row["content"]), add_generation_prompt=False)
    assert prompt[2:] == row["ids_whole_string"]
    parts = [tokenizer.special_ids["<|user|>"], *tokenizer.encode("\n")]
    assert [*parts, *tokenizer.encode(row["content"])] == row["ids_role_newline_then_content"]


def test_golden_special_tokens(tokenizer):
    assert tokenizer.special_ids == GOLDEN["special"]
    ends = [GOLDEN["special"][one] for one in GOLDEN["stop_symbols"]]
    assert list(tokenizer.chat_end_ids) == ends
    special = tokenizer.special
    assert (special.eos, special.pad, special.gmask, special.start) == (380, 380, 382, 384)
    assert tokenizer.vocab_size == 380 + len(SPECIAL) == 394


def test_special_tokens_do_not_come_from_text(tokenizer):
    text = "[gMASK]<sop><|user|>\nhi<|endoftext|>"
    ids = tokenizer.encode(text)
    assert max(ids) < 380
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text, allow_special=True) == [382, 384, 387, 10, 104, 105, 380]


def test_an_answer_is_read(tokenizer):
    tools = [{"name": "f", "parameters": {}}]
    ids = tokenizer.encode('f\n{"city": "北京"}')
    function = {"name": "f", "arguments": {"city": "北京"}}
    assert tokenizer.read_answer(ids, tools) == {
        "role": "assistant",
        "content": '{"city": "北京"}',
        "metadata": "f",
        "tool_calls": [{"type": "function", "function": function}],
    }
    message = tokenizer.read_answer(ids, tools)
    prompt = tokenizer.apply_chat_template([*user("?"), message], add_generation_prompt=False)
    assert prompt[-len(ids) :] == ids


def test_bytes_are_joined_in_the_order_of_ranks():
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b"ow": 256, b"lo": 257, b"low": 258}
    assert joined(b"low", ranks, 10**6) == [b"low"]
    assert joined(b"low", ranks, 258) == [b"l", b"ow"]
    assert joined(b"lol", ranks, 10**6) == [b"lo", b"l"]


def lines(*tokens):
    return b"".join(base64.b64encode(one) + b" %d\n" % rank for rank, one in enumerate(tokens))


def test_joins_are_those_of_the_ranks(tmp_path):
    """Whole words of the vocabulary are taken as they are, others joined by rank."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"ow", b"lo", b"low", b"lower"]
    tokens += [b"ab", b"bc", b"abc"]  # two ways to cut it, one to reach it
    file = tmp_path / "tokenizer.model"
    file.write_bytes(lines(*tokens))
    tokenizer = glm_jax.load_tokenizer(tmp_path)
    assert tokenizer.encode("low lower") == [258, 32, 258, 101, 114]  # " lower": no such token
    assert tokenizer.encode("lower") == [259]  # though no join reaches it
    assert tokenizer.encode("lol") == [257, 108]
    assert tokenizer.encode("xabc") == [120, 262]
    assert np.flatnonzero(tokenizer.sentence_ends()).tolist() == [10, 33, 46, 58, 59, 63]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"AA== 0\nnot base64 1\n", "line 2 is b'not base64 1'"),
        (b"AA== 0\nAQ==\n", "line 2"),
        (b"AA== 0\nAQ== 2\n", r"ranks 0, 1, 2, \.\.; line 2"),
        (b"AA== 0\nAA== 1\n", "each token once"),
        (lines(*(bytes([byte]) for byte in range(255))), "a token for each byte; 255 has none"),
    ],
)
def test_damaged_ranks_are_refused(tmp_path, content, message):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(UserError, match=message):
        glm_jax.load_tokenizer(tmp_path)


def test_what_are_ranks():
    assert is_ranks(RANKS.read_bytes())
    for content in (b"", b"text\n", b"\n", bytes(range(256)), b"{}", b"AA=="):
        assert not is_ranks(content)
    assert len(read_ranks(RANKS.read_bytes(), "x")) == 380
