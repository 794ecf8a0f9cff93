import pytest
import sentencepiece

from glm_jax.tokenizers.piece_types import as_control
from tests.tokenizers.golden_chat import ICE_TEXT

MODEL = ICE_TEXT.read_bytes()


def reader(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def test_user_defined_pieces_are_no_longer_matched_in_text():
    before, after = reader(MODEL), reader(as_control(MODEL, ["[gMASK]", "no such piece"]))
    assert before.encode("a[gMASK]b[MASK]") == [351, 6, 535, 5]
    ids = after.encode("a[gMASK]b[MASK]")
    assert 6 not in ids
    assert ids[-1] == 5
    assert after.piece_to_id("[gMASK]") == 6
    assert after.is_control(6)
    assert not after.is_control(5)
    texts = ["你好 hello", "a<n>b<|blank_4|>c", "", "emoji 👋"]
    assert [after.encode(text) for text in texts] == [before.encode(text) for text in texts]


def test_other_pieces_keep_their_type_and_all_else_its_bytes():
    assert as_control(MODEL, []) == MODEL
    assert as_control(MODEL, ["▁你好"]) == MODEL  # an ordinary piece
    assert len(as_control(MODEL, ["[MASK]"])) == len(MODEL) + 2


@pytest.mark.parametrize("content", [b"\x0a\xff", b"\x0a\x05ab", b"\xff" * 11, b"\x0b", b"\x0d1"])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(ValueError, match=r"field|number"):
        as_control(content, ["a"])
