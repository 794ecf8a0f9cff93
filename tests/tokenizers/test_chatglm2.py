import numpy as np
import pytest

import glm_jax
from glm_jax.errors import UserError
from tests.tokenizers.golden_chat import PIECES, messages_of, user, vectors

OF_2, OF_3 = vectors("chatglm2_chat"), vectors("chatglm3_chat")


@pytest.fixture(scope="module")
def two():
    return glm_jax.load_tokenizer(PIECES, kind="chatglm2")


@pytest.fixture(scope="module")
def three():
    return glm_jax.load_tokenizer(PIECES, kind="chatglm3")


@pytest.mark.parametrize("row", OF_2["encode"], ids=lambda row: repr(row["text"][:12]))
def test_golden_ids_and_texts(two, three, row):
    for tokenizer in (two, three):
        assert tokenizer.encode(row["text"]) == row["ids"]
        assert [tokenizer.piece(id_) for id_ in row["ids"]] == row["pieces"]
        assert tokenizer.decode(row["ids"]) == row["decoded"]


@pytest.mark.parametrize("row", OF_2["chat"], ids=lambda row: f"{len(row['history'])} rounds")
def test_golden_prompts_of_chatglm2(two, row):
    messages = messages_of(row)
    assert two.apply_chat_template(messages) == row["input_ids"]
    assert two.apply_chat_template(messages, tokenize=False) == row["prompt_text"]


def test_golden_prompts_behind_a_cache(two):
    for row in OF_2["incremental"]:
        ids = two.next_turn(messages_of(row))
        assert ids == row["input_ids"]
        assert two.decode(ids) == row["prompt_text"]


@pytest.mark.parametrize("row", OF_3["chat"], ids=lambda row: f"{len(row['history'])} messages")
def test_golden_prompts_of_chatglm3(three, row):
    messages = [*row["history"], {"role": row["role"], "content": row["query"]}]
    assert three.apply_chat_template(messages) == row["input_ids"]
    text = "".join(part for parts in row["symbolic"] for part in parts)
    assert three.apply_chat_template(messages, tokenize=False) == text
    pieces = [
        id_
        for parts in row["symbolic"]
        for part in parts
        for id_ in ([three.special_ids[part]] if part in three.special_ids else three.encode(part))
    ]
    assert pieces == row["input_ids"]


def test_golden_injection(three):
    row = OF_3["injection"]
    ids = three.encode(row["text"])
    assert ids == row["ids_default"]
    assert [three.piece(id_) for id_ in ids] == row["pieces_default"]
    special = three.encode(row["text"], allow_special=True)
    assert [three.piece(id_) for id_ in special] == row["pieces_encode_special"]
    prompt = three.apply_chat_template(user(row["text"]))
    assert prompt.count(three.special_ids["<|user|>"]) == 1


def test_golden_decoding(three):
    for row in OF_3["decode"]:
        assert three.decode(row["ids"]) == row["text"]


@pytest.mark.parametrize("row", OF_3["process_response"], ids=lambda row: repr(row["output"][:12]))
def test_golden_answers(three, row):
    tools = row["history"][0].get("tools")
    message = three.read_answer(row["output"], tools)
    said = [*message.pop("earlier", []), message]
    for one, expected in zip(said, row["new_history"][len(row["history"]) :], strict=True):
        shown = {"metadata": "", **one}
        shown.pop("tool_calls", None)
        assert shown == expected
    expected = row["content"]
    if isinstance(expected, str):
        assert message == {"role": "assistant", "content": expected}
    elif "parameters" in expected:
        function = {"name": expected["name"], "arguments": expected["parameters"]}
        assert message["tool_calls"] == [{"type": "function", "function": function}]
    else:
        assert "tool_calls" not in message
        assert {"name": message["metadata"], "content": message["content"]} == expected


@pytest.mark.parametrize("row", OF_3["process_response"], ids=lambda row: repr(row["output"][:12]))
def test_answers_as_ids_and_back_into_a_prompt(three, row):
    tools = row["history"][0].get("tools")
    ids = three.encode(row["output"], allow_special=True)
    message = three.read_answer(ids, tools)
    expected = three.read_answer(row["output"], tools)
    assert message.get("tool_calls") == expected.get("tool_calls")
    assert message["content"].strip() == expected["content"].strip()
    prompt = three.apply_chat_template([*row["history"], message])
    again = three.apply_chat_template(row["new_history"])
    assert three.decode(prompt) == three.decode(again)


def test_golden_special_tokens(two, three):
    for tokenizer, golden in ((two, OF_2), (three, OF_3)):
        assert tokenizer.vocab_size == golden["n_words"]
        pad = golden["special"]["<unk>/<pad>"]
        assert tokenizer.special.pad == pad
        others = {one: id_ for one, id_ in golden["special"].items() if id_ != pad}
        assert tokenizer.special_ids == {**others, "<unk>": pad}
        special = tokenizer.special
        assert (special.start, special.end) == (others["sop"], others["eop"])
        assert special.masks == (others["[MASK]"], others["[gMASK]"], others["[sMASK]"])
        assert (special.cls, special.eos) == (1, 2)
    assert two.chat_end_ids == (2,)
    assert three.chat_end_ids == tuple(three.special_ids[one] for one in OF_3["stop_symbols"])
    assert two.fingerprint != three.fingerprint


def test_words_that_begin_like_a_special_token_stay_words(two):
    ids = two.encode("[gMASK]sop sophomore shop", allow_special=True)
    assert ids[:2] == [481, 483]
    assert not {481, 483} & set(ids[2:])


def test_ids_that_only_a_padded_model_has(two):
    assert two.decode([344, 485, 10**6, 446]) == "你\ufffd\ufffd好"
    assert two.decode([344, 485], skip_special=True) == "你\ufffd"
    with pytest.raises(UserError, match="ids from 0 on; got -1"):
        two.decode([-1])
    assert np.flatnonzero(two.sentence_ends())[0] == 13  # the byte of a line's end
