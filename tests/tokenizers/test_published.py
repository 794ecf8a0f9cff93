"""Small vocabularies of our own; the published ones where GLM_JAX_VOCAB_DIR says they lie."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.byte_pairs import byte_characters
from glm_jax.tokenizers.tokenizer import load_tokenizer, tokenizer_file

GOLDEN = Path(__file__).parents[1] / "golden" / "glm" / "data" / "tokenizers.json"
ROLES = {
    "ENC": "cls",
    "MASK": "mask",
    "eos": "eos",
    "pad": "pad",
    "sop": "start",
    "eop": "end",
    "gMASK": "gmask",
    "sMASK": "smask",
    "dBLOCK": "block",
}
FILES = {
    "bert-uncased": "bert-base-uncased-vocab.txt",
    "gpt2": "gpt2-vocab.json",
    "roberta": "roberta-vocab.json",
    "chinese-sp": "cog-pretrain.model",
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "boat", "##s", "left", "."]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_vocabulary_end_at_line_feeds_alone(tmp_path, end):
    """Words such as U+2028, which Python takes for a line's end, keep their ids."""
    words = [*WORDS[:5], "a", "\u2028", "\x85", "\x1c", "b", "c"]
    (tmp_path / "vocab.txt").write_bytes(end.join([*words, ""]).encode())
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("a b c") == [5, 9, 10]
    assert tokenizer.special.start == 11


@pytest.fixture
def bert(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


@pytest.fixture
def byte_pairs(tmp_path):
    """byte_pairs("<mask>", ...) -> a directory with all bytes, "low", and these pieces."""

    def write(*last):
        first = ["<s>", "<pad>", "</s>", "<unk>"] if "<mask>" in last else []
        pieces = [*first, *byte_characters().values(), "lo", "low", *last]
        (tmp_path / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
        (tmp_path / "merges.txt").write_text("#version: 0.2\nl o\nlo w\n", encoding="utf-8")
        return tmp_path, len(pieces)

    return write


def test_word_pieces(bert):
    tokenizer = load_tokenizer(bert)
    special = tokenizer.special
    assert (special.eos, special.pad, special.cls, special.mask) == (0, 0, 2, 4)
    assert (special.start, special.end, special.gmask, special.smask) == (10, 11, 12, 13)
    assert (special.block, tokenizer.vocab_size) == (14, 15)
    ids = tokenizer.encode("The boats[gMASK] left.", allow_special=True)
    assert ids == [5, 6, 7, 12, 8, 9]
    assert tokenizer.decode(ids) == "the boats [gMASK] left ."
    assert tokenizer.decode(ids, skip_special=True) == "the boats left ."
    assert special.gmask not in tokenizer.encode("[gMASK]")
    assert np.flatnonzero(tokenizer.sentence_ends()).tolist() == [9]
    assert tokenizer.encode_batch(["the", "left"]) == [[5], [8]]
    with pytest.raises(ValueError, match=r"0\.\.14; got 15"):
        tokenizer.decode([15])


def test_gpt2_and_roberta(byte_pairs):
    directory, size = byte_pairs("<|endoftext|>")
    gpt2 = load_tokenizer(directory)
    assert gpt2.special.eos == size - 1
    found = [getattr(gpt2.special, role) - size for role in ("start", "end", "cls", "mask")]
    assert found == [0, 1, 2, 3]
    assert (gpt2.special.gmask - size, gpt2.special.smask - size) == (6, 7)
    ids = gpt2.encode("low [MASK] low", allow_special=True)
    assert gpt2.decode(ids) == "low[MASK] low"  # the space before the mask is dropped
    directory, size = byte_pairs("<mask>")
    roberta = load_tokenizer(directory)
    assert (roberta.special.cls, roberta.special.eos, roberta.special.mask) == (0, 2, size - 1)
    assert roberta.special.start == size
    assert roberta.fingerprint != gpt2.fingerprint


def test_the_chinese_model_and_its_colliding_ids(tmp_path):
    """The bundled model stands for the published one."""
    (tmp_path / "cog-pretrain.model").write_bytes(tokenizer_file().read_bytes())
    fixed, colliding = load_tokenizer(tmp_path), load_tokenizer(tmp_path, colliding_ids=True)
    found = [getattr(fixed.special, role) - 7168 for role in ROLES.values()]
    assert found == [2, 3, 0, 0, 6, 7, 9, 8, 10]
    found = [getattr(colliding.special, role) - 7168 for role in ROLES.values()]
    assert found == [2, 3, 0, 0, 6, 7, 7, 8, 9]
    text = "the boat [gMASK] left"
    for tokenizer in (fixed, colliding):
        assert tokenizer.special.gmask in tokenizer.encode(text, allow_special=True)
    assert fixed.decode([fixed.special.gmask]) == "[gMASK]"
    assert colliding.decode([colliding.special.end]) == "<|endofpiece|>"
    # What is saved knows its numbering.
    (tmp_path / "saved").mkdir()
    colliding.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == colliding.fingerprint != fixed.fingerprint
    assert again.special == colliding.special


def test_what_is_none_of_them(bert):
    with pytest.raises(UserError, match="Chinese model alone"):
        load_tokenizer(bert, colliding_ids=True)
    (bert / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"not a vocabulary of GLM 2021: KeyError\('\[PAD\]'\)"):
        load_tokenizer(bert)


@pytest.mark.skipif("GLM_JAX_VOCAB_DIR" not in os.environ, reason="GLM_JAX_VOCAB_DIR is not set")
@pytest.mark.parametrize("number", range(14))
def test_the_published_vocabularies(number):
    """Ids of the command tokens, of texts, and what they are decoded to, as recorded."""
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) == 14
    case = golden[number]
    chinese = case["tokenizer"] == "chinese-sp"
    colliding = chinese and not case["fix_command_token"]
    path = Path(os.environ["GLM_JAX_VOCAB_DIR"]) / FILES[case["tokenizer"]]
    tokenizer = load_tokenizer(path, colliding_ids=colliding)
    for name, (_, id_) in case["commands"].items():
        if name in ROLES:
            assert getattr(tokenizer.special, ROLES[name]) == id_
    if case["decoder_mask_symbol"]:
        assert tokenizer.vocab_size == case["num_tokens"]
    for text in case.get("encodings", []):
        assert tokenizer.encode(text["text"], allow_special=True) == text["ids"]
        if not colliding or tokenizer.special.end not in text["ids"]:
            assert tokenizer.decode(text["ids"]) == text["decoded"]


@pytest.mark.parametrize(
    "ids",
    [
        '{"<|endoftext|>": -5}',
        '{"<|endoftext|>": 1000000000000}',
        '{"<|endoftext|>": true}',
        '{"<|endoftext|>": "x"}',
        '{"<|endoftext|>": NaN}',
        '{"<|endoftext|>": 0, "a": 0}',
        '{"<|endoftext|>": [0]}',
        "{}",
    ],
)
def test_ids_that_are_none(tmp_path, ids):
    (tmp_path / "vocab.json").write_text(ids)
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(UserError, match=r"vocab.json must give each of its pieces an id"):
        load_tokenizer(tmp_path)


def test_damaged_json(byte_pairs, bert):
    directory, _ = byte_pairs("<|endoftext|>")
    (directory / "vocab.json").write_text("[" * 100_000)
    (directory / "vocab.txt").rename(directory / "words")
    with pytest.raises(UserError, match=r"vocab.json: it is nested deeper than 100 levels"):
        load_tokenizer(directory)
    (directory / "words").rename(directory / "vocab.txt")
    settings = bert / "glm_tokenizer.json"
    for text in ("[" * 100_000, "[]", "{", '{"colliding_ids": 1}'):
        settings.write_text(text)
        with pytest.raises(UserError, match=r"glm_tokenizer.json"):
            load_tokenizer(bert)
