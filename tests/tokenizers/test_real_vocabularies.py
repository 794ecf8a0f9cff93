"""The fourteen sequences of ids of the real vocabularies, as public tests of others have them.

Their files are not to be had here; GLM_JAX_CHAT_VOCAB_DIR names a directory that holds
chatglm1/ice_text.model, chatglm2/tokenizer.model, chatglm3/tokenizer.model and
glm4/tokenizer.model. What can be checked without them is checked without them.
"""

import functools
import os
from pathlib import Path

import pytest

import glm_jax
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES, RANKS, vectors

GOLDEN = vectors("real_vocab_ids")
FILES = {
    "chatglm1": ("chatglm", "ice_text.model", ICE_TEXT),
    "chatglm2": ("chatglm2", "tokenizer.model", PIECES),
    "chatglm3": ("chatglm3", "tokenizer.model", PIECES),
    "glm4": ("glm4", "tokenizer.model", RANKS),
}
CASES = [(name, index) for name in FILES for index in range(len(GOLDEN[name]))]
# Ids of the pieces, and of all special tokens behind them.
PIECES_OF = {"chatglm2": 64789, "chatglm3": 64789, "glm4": 151329}


@functools.cache
def real(name):
    kind, file, _ = FILES[name]
    path = Path(os.environ["GLM_JAX_CHAT_VOCAB_DIR"]) / name / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return glm_jax.load_tokenizer(path, kind=kind)


@functools.cache
def stand_in(name):
    return glm_jax.load_tokenizer(FILES[name][2], kind=FILES[name][0])


def prompt(tokenizer, name, row):
    """The ids of a row: those around a text are what a prompt has around it."""
    if "messages" in row:
        messages = [{"role": role, "content": text} for role, text in row["messages"]]
        return tokenizer.apply_chat_template(messages)
    ids, special = tokenizer.encode(row["text"]), tokenizer.special
    around = [special.gmask, special.start]
    return [*ids, *around] if name == "chatglm1" else [*around, *ids]


@pytest.mark.skipif(
    "GLM_JAX_CHAT_VOCAB_DIR" not in os.environ,
    reason="the real vocabularies are not bundled; GLM_JAX_CHAT_VOCAB_DIR says where they lie",
)
@pytest.mark.parametrize(("name", "index"), CASES)
def test_real_ids(name, index):
    row = GOLDEN[name][index]
    assert prompt(real(name), name, row) == row["ids"]
    for ids in GOLDEN["glm4_plain_long"] if name == "glm4" else ():
        assert real(name).encode(real(name).decode(ids)) == ids


@pytest.mark.parametrize(("name", "index"), [case for case in CASES if case[0] != "chatglm1"])
def test_special_ids_stand_where_the_real_ones_do(name, index):
    """Counted from the end of the pieces, specials of the stand-in are those of the real one."""
    row = GOLDEN[name][index]
    tokenizer = stand_in(name)
    first = tokenizer.vocab_size - (14 if name == "glm4" else 9 if name == "chatglm3" else 5)
    ours = [id_ - first for id_ in prompt(tokenizer, name, row) if id_ >= first]
    assert ours == [id_ - PIECES_OF[name] for id_ in row["ids"] if id_ >= PIECES_OF[name]]


@pytest.mark.parametrize("index", range(len(GOLDEN["chatglm1"])))
def test_white_space_of_chatglm_6b_stands_where_the_real_one_does(index):
    """White space has fixed ids: newline 4, tab 130008, k spaces 130007 + k."""
    row = GOLDEN["chatglm1"][index]
    tokenizer = stand_in("chatglm1")
    ids = prompt(tokenizer, "chatglm1", row)
    names = {4: "<n>", 130008: "<|tab|>", 130001: "[gMASK]", 130004: "<sop>"}
    names |= {130007 + k: f"<|blank_{k}|>" for k in range(2, 81)}
    real_ones = [names[id_] for id_ in row["ids"] if id_ in names]
    assert [one for one in map(tokenizer.piece, ids) if one in names.values()] == real_ones


def test_there_are_fourteen():
    assert len(CASES) == 14
