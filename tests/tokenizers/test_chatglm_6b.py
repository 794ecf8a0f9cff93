import dataclasses

import numpy as np
import pytest

import glm_jax
from glm_jax.errors import UserError
from tests.tokenizers.golden_chat import ICE_TEXT, directory, messages_of, user, vectors

GOLDEN = vectors("chatglm1_chat")


@pytest.fixture(scope="module")
def tokenizer():
    return glm_jax.load_tokenizer(ICE_TEXT)


@pytest.mark.parametrize("row", GOLDEN["encode"], ids=lambda row: repr(row["text"][:12]))
def test_golden_ids_and_texts(tokenizer, row):
    assert tokenizer.encode(row["text"]) == row["ids"]
    assert tokenizer.encode(row["text"], allow_special=True) == row["ids"]
    assert [tokenizer.piece(id_) for id_ in row["ids"]] == row["pieces"]
    assert tokenizer.decode(row["ids"]) == row["decoded"]


@pytest.mark.parametrize("row", GOLDEN["chat"], ids=lambda row: f"{len(row['history'])} rounds")
def test_golden_prompts(tokenizer, row):
    messages = messages_of(row)
    ids = tokenizer.apply_chat_template(messages)
    assert ids == row["input_ids"]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == row["prompt_text"]
    assert [tokenizer.piece(id_) for id_ in ids[-2:]] == row["suffix_symbols"]
    assert ids.index(tokenizer.special.start) == row["context_length"]
    assert ids.index(tokenizer.special.gmask) == row["mask_position"]


@pytest.mark.parametrize("row", GOLDEN["chat"], ids=lambda row: f"{len(row['history'])} rounds")
def test_golden_positions_are_those_of_a_blank_that_ends_the_text(tokenizer, row):
    """The answer is a span that stood where [gMASK] is: its first slot has the mask's position."""
    special, mask = tokenizer.special, row["mask_position"]
    text = np.array([*tokenizer.apply_chat_template(messages_of(row))[:mask], 100])
    found = glm_jax.corruption.assemble(
        text,
        [(mask, mask + 1)],
        [0],
        mask_id=special.gmask,
        start_id=special.start,
        end_id=special.end,
    )
    assert found["tokens"].tolist()[:-1] == row["input_ids"]
    positions = [found[name].tolist()[:-1] for name in ("positions", "block_positions")]
    assert positions == row["position_ids"]


def test_golden_replies(tokenizer):
    for row in GOLDEN["process_response"]:
        message = {"role": "assistant", "content": row["processed"]}
        assert tokenizer.read_answer(row["raw"]) == message
    ids = tokenizer.encode("你好! ok, yes")
    assert tokenizer.read_answer(ids)["content"] == "你好！ ok, yes"


def test_golden_special_tokens(tokenizer):
    special = tokenizer.special
    known = GOLDEN["special"]
    for role, spelling in {
        **{"mask": "[MASK]", "gmask": "[gMASK]", "smask": "[sMASK]", "pad": "<pad>"},
        **{"start": "<sop>", "end": "<eop>", "eos": "<eop>"},
    }.items():
        assert getattr(special, role) == known[spelling] == tokenizer.special_ids[spelling]
    assert tokenizer.chat_end_ids == (known["<eop>"],)
    for spelling, id_ in known.items():
        assert tokenizer.piece(id_) == spelling
    assert tokenizer.decode([known["<n>"], known["<|tab|>"], known["<|blank_80|>"]]) == (
        "\n\t" + " " * 80
    )


def test_special_tokens_do_not_come_from_text(tokenizer):
    text = "a[gMASK]b<sop></s>"
    ids = tokenizer.encode(text)
    assert not {5, 6, 7, 9, 10, 2} & set(ids)
    assert tokenizer.decode(ids) == text
    prompt = tokenizer.apply_chat_template(user(text))
    assert prompt == [*ids, 6, 9]
    published = tokenizer.encode("a[gMASK]b", allow_special=True)
    assert published == [351, 6, 535]
    assert tokenizer.decode(published) == "a[gMASK]b"
    assert tokenizer.decode([351, 6, 396], skip_special=True) == "a world"


def test_ids_of_images_stand_in_front_in_version_1_0(tmp_path, tokenizer):
    path = directory(tmp_path, ICE_TEXT, "ice_text.model", tokenizer_config={"num_image_tokens": 7})
    moved = glm_jax.load_tokenizer(path)
    row = GOLDEN["encode"][2]
    assert moved.encode(row["text"]) == [id_ + 7 for id_ in row["ids"]]
    assert moved.decode(moved.encode(row["text"])) == row["decoded"]
    expected = {
        name: None if id_ is None else id_ + 7
        for name, id_ in dataclasses.asdict(tokenizer.special).items()
    }
    assert dataclasses.asdict(moved.special) == expected
    assert moved.vocab_size == tokenizer.vocab_size + 7
    assert moved.decode([3, *moved.encode("hello world")]) == "<image_3> hello world"
    assert moved.fingerprint != tokenizer.fingerprint
    config = path / "tokenizer_config.json"
    config.write_text('{"num_image_tokens": -1}')
    with pytest.raises(UserError, match=r"num_image_tokens in .* from 0 to 1,000,000; got -1"):
        glm_jax.load_tokenizer(path)
    config.unlink()
    (path / "config.json").write_text('{"bos_token_id": 20009}')
    assert glm_jax.load_tokenizer(path).special.start == 20009


def test_ends_of_sentences(tokenizer):
    ends = np.flatnonzero(tokenizer.sentence_ends())
    assert {tokenizer.encode(mark)[-1] for mark in (".", "!", "?", "。")} <= set(ends)
    assert 4 in ends  # <n>, the end of a line
    assert not set(ends) & set(tokenizer.special_ids.values())


def test_what_is_no_such_vocabulary_is_refused(tmp_path):
    file = tmp_path / "ice_text.model"
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"ice_text\.model is not a sentencepiece model"):
        glm_jax.load_tokenizer(tmp_path)
