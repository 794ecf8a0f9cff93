import io

import numpy as np
import pytest
import sentencepiece

from glm_jax.errors import UserError
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.sentencepieces import SentencePieceTokenizer as Tokenizer
from glm_jax.tokenizers.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bundled")


def pieces(tokenizer, ids):
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer._model)
    return [processor.id_to_piece(id_) for id_ in ids]


def small_model(**options):
    """A vocabulary of a few dozen pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the light was good"] * 10),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def test_size_and_ids_of_the_bundled_vocabulary(tokenizer):
    assert tokenizer.vocab_size == 7168
    special = tokenizer.special
    assert (special.pad, special.eos) == (0, 1)
    assert (special.cls, special.mask, special.gmask, special.smask) == (3, 4, 5, 6)
    assert (special.start, special.end) == (7, 8)


@pytest.mark.parametrize(
    "text",
    [
        "the light was good",
        "  two  spaces  before and behind ",
        "one\n\ntwo\n",
        "子曰：“學而時習之，不亦說乎？”「Ｆ」",
        "naïve 🙂\ttab",
        "[MASK] a[MASK]b <|endofpiece|> [CLS]",
        "",
    ],
)
def test_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_byte_order_mark_and_carriage_return_go(tokenizer):
    assert tokenizer.encode("\ufeffone\r\ntwo") == tokenizer.encode("one\ntwo")


def test_text_never_yields_special_ids(tokenizer):
    text = " ".join(SPELLINGS.values()) + "".join(SPELLINGS.values()) + "<unk><s></s>"
    ids = tokenizer.encode(text)
    assert min(ids) > 8
    assert tokenizer.encode_batch([text, "a"]) == [ids, tokenizer.encode("a")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the light [MASK] was good", ["▁the", "▁light", "[MASK]", "▁was", "▁good"]),
        ("the light  [sMASK], was", ["▁the", "▁light", "[sMASK]", ",", "▁was"]),
        ("[CLS]the light", ["[CLS]", "▁the", "▁light"]),
        ("[CLS][MASK] was", ["[CLS]", "[MASK]", "▁was"]),
        ("the\n[gMASK]<|startofpiece|> was", ["▁the", "\n", "[gMASK]", "<|startofpiece|>", "▁was"]),
        ("the light<|endoftext|>", ["▁the", "▁light", "<|endoftext|>"]),
    ],
)
def test_prompt_has_the_pieces_of_a_training_row(tokenizer, text, expected):
    ids = tokenizer.encode(text, allow_special=True)
    assert pieces(tokenizer, ids) == expected
    assert tokenizer.encode(tokenizer.decode(ids), allow_special=True) == ids


def test_cutting_a_span_out_of_the_ids_equals_the_prompt(tokenizer):
    whole = tokenizer.encode("God called the light day, and the darkness he called night.")
    light, day = (tokenizer.encode(word)[0] for word in ("light", "day"))
    cut = [tokenizer.special.mask if id_ in (light, day) else id_ for id_ in whole]
    prompt = "God called the [MASK] [MASK], and the darkness he called night."
    assert tokenizer.encode(prompt, allow_special=True) == cut
    assert tokenizer.decode(cut) == prompt.replace("] [", "][")


def test_decode_with_masks(tokenizer):
    s = tokenizer.special
    the, was = tokenizer.encode("the was")
    assert tokenizer.decode([s.cls, the, s.mask, was, s.eos]) == "[CLS]the [MASK] was<|endoftext|>"
    assert tokenizer.decode([s.cls, the, s.mask, was, s.eos], skip_special=True) == "the was"
    assert tokenizer.decode([was]) == "was"
    assert tokenizer.decode(np.array([s.mask, was], np.int32)) == "[MASK] was"
    chinese = tokenizer.encode("天地[MASK]黃", allow_special=True)
    assert tokenizer.decode(chinese) == "天地[MASK]黃"
    with pytest.raises(ValueError, match=r"0\.\.7167; got 7168"):
        tokenizer.decode([7168])


def test_sentence_ends(tokenizer):
    ends = tokenizer.sentence_ends()
    assert ends.shape == (7168,)
    assert ends.dtype == np.bool_
    text = "yes. no, so? ah; go: up! 之。，；！？…\n"
    got = [piece for piece in pieces(tokenizer, np.flatnonzero(ends)) if piece in text]
    assert set("。；！？\n") <= set(got)
    assert not {",", "，", "、"} & set(got)
    assert not ends[: tokenizer.special.end + 1].any()
    # A newline, a stop and a comma, at the end of their ids.
    assert [bool(ends[tokenizer.encode(text)[-1]]) for text in ("a\n", "a.", "a,")] == [1, 1, 0]


def test_save_and_load_from_file_and_directory(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.model", str(tmp_path)):
        assert load_tokenizer(path).fingerprint == tokenizer.fingerprint


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at '.*absent\.model'"):
        load_tokenizer(tmp_path / "absent.model")
    with pytest.raises(UserError, match=r"holds no tokenizer\.model"):
        load_tokenizer(tmp_path)
    for content in (b"", b"plain text\n", bytes(range(256))):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.model is .*not a sentencepiece model"):
            load_tokenizer(tmp_path / "bad.model")


def test_model_without_control_symbols(tmp_path):
    names = [SPELLINGS[role] for role in ("cls", "mask", "gmask", "start", "end")]
    with pytest.raises(UserError, match=r"lacks the control symbols \[sMASK\], <pad>;"):
        Tokenizer(small_model(control_symbols=names))
    names.append(SPELLINGS["smask"])
    with pytest.raises(UserError, match=r"control symbols \[MASK\], .*user-defined"):
        Tokenizer(small_model(user_defined_symbols=names, pad_id=3))
    special = Tokenizer(small_model(control_symbols=names, pad_id=3)).special
    assert (special.eos, special.pad, special.block) == (2, 3, None)


def test_a_model_may_have_dblock():
    names = [SPELLINGS[role] for role in ("cls", "mask", "gmask", "smask", "start", "end", "block")]
    tokenizer = Tokenizer(small_model(control_symbols=names, pad_id=3))
    block = tokenizer.special.block
    assert tokenizer.encode("[dBLOCK]", allow_special=True) == [block]
    assert tokenizer.decode([block]) == "[dBLOCK]"
