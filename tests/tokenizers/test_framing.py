import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.tokenizers.framing import blanked_ids, causal_prefix, check_blanks

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special


def test_a_prompt_with_blanks_is_framed_as_in_training():
    words = TOKENIZER.encode("the [MASK] was", allow_special=True)
    assert blanked_ids(TOKENIZER, "the [MASK] was") == [SPECIAL.cls, *words, SPECIAL.eos]
    assert blanked_ids(TOKENIZER, "the [gMASK]")[-1] == SPECIAL.gmask
    assert blanked_ids(TOKENIZER, "the [MASK]")[-2:] == [SPECIAL.mask, SPECIAL.eos]
    assert blanked_ids(TOKENIZER, "[gMASK] the")[-1] == SPECIAL.eos


def test_a_causal_text_begins_with_two_special_tokens():
    assert causal_prefix(TOKENIZER) == [SPECIAL.gmask, SPECIAL.start]


def test_a_prompt_without_a_blank_is_refused():
    check_blanks("the [sMASK]")
    with pytest.raises(UserError, match=r"no blank in the prompt; write \[MASK\], "):
        check_blanks("the [mask]")
