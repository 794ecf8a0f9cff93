import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.tokenizers.protocol import Tokenizer
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES, RANKS, user

MEMBERS = {name for name in vars(Tokenizer) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *[("bundled", None), (ICE_TEXT, None), (RANKS, None), (RANKS, "glm4_0414")],
        *[(PIECES, "chatglm2"), (PIECES, "chatglm3")],
    ],
)
def test_every_kind_has_all_of_it(path, kind):
    tokenizer = glm_jax.load_tokenizer(path, kind)
    assert set(dir(tokenizer)) >= MEMBERS
    assert len(tokenizer.fingerprint) == 64
    assert tokenizer.sentence_ends().shape == (tokenizer.vocab_size,)
    texts = ["hello", "", "  a\n\tb <|user|>", "你好，世界！"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []
    assert all(0 <= id_ < tokenizer.vocab_size for id_ in tokenizer.chat_end_ids)


def test_a_tokenizer_without_a_chat_format_says_so():
    tokenizer = glm_jax.load_tokenizer("bundled")
    assert tokenizer.chat_end_ids == ()
    for refused in (
        lambda: tokenizer.apply_chat_template(user("hi")),
        lambda: tokenizer.read_answer([1]),
    ):
        with pytest.raises(UserError, match="the bundled vocabulary has no chat format"):
            refused()
