"""What stands around a text: its ids as in training, with blanks or in front of an answer.

"the [MASK] is"    a model that fills blanks    [CLS] ▁the [MASK] ▁is eos
"the light"        a causal model               [gMASK] sop ▁the ▁light
"""

import re

from glm_jax.errors import UserError
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.protocol import Tokenizer

MASKS = [SPELLINGS[role] for role in ("mask", "gmask", "smask")]
# One of them in a text.
MASK = re.compile("|".join(map(re.escape, MASKS)))


def blanked_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a text with blanks, as in training: [CLS], the text, eos.

    There is no eos behind a [gMASK] that ends the text, since the text goes on (the published
    rule). ChatGLM-6B has neither (`Tokenizer.frames_texts`).
    """
    if not tokenizer.frames_texts:
        return tokenizer.encode(prompt, allow_special=True)
    ids = [tokenizer.special.cls, *tokenizer.encode(prompt, allow_special=True)]
    return ids if ids[-1] == tokenizer.special.gmask else [*ids, tokenizer.special.eos]


def causal_prefix(tokenizer: Tokenizer) -> list[int]:
    """The ids before every text of a causal model: [gMASK] and the start token."""
    return [tokenizer.special.gmask, tokenizer.special.start]


def check_blanks(prompt: str) -> None:
    """Raises UserError if a prompt has no blank."""
    if not MASK.search(prompt):
        raise UserError(f"no blank in the prompt; write {', '.join(MASKS[:-1])} or {MASKS[-1]}")
