"""Any fast tokenizer of Hugging Face: a `tokenizer.json`, read by its library `tokenizers`.

Special tokens, their roles and the chat template come from it and from the files beside it:

    tokenizer.json            added_tokens: {"id": 151336, "content": "<|user|>", "special": true}
    tokenizer_config.json     "eos_token": "<|endoftext|>", "chat_template": ".."
    chat_template.jinja

Added tokens that are not special ("<think>" in some) are read from any text, as published.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glm_jax.errors import UserError
from glm_jax.json_files import shown
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.calls import JSON_CALLS
from glm_jax.tokenizers.chat_formats import Chat, Prompt
from glm_jax.tokenizers.chat_tokenizer import ChatTokenizer
from glm_jax.tokenizers.files import TokenizerFiles
from glm_jax.tokenizers.glm4 import ENDS, glm4_format

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# How the vocabularies of GLM spell the tokens around a blank.
_START = ("<sop>", "sop", "<|startofpiece|>")
_END = ("<eop>", "eop", "<|endofpiece|>")
_HUGGING_FACE = "huggingface"


class HuggingFaceTokenizer(ChatTokenizer):
    """Of a tokenizer.json; one with GLM-4's tokens has its chat format and its calls of tools."""

    def __init__(self, files: TokenizerFiles, kind: str | None = None):
        """Args:
        files: with the vocabulary `tokenizer.json`.
        kind: "glm4" or "glm4_0414"; None: by the model's config.json, if it has GLM-4's tokens.

        Raises:
          UserError: no such file, or tokens of GLM that it lacks.
        """
        self._coder = _read(files)
        added = self._coder.get_added_tokens_decoder()
        ids = {token.content: id_ for id_, token in sorted(added.items()) if token.special}
        chats = ids.keys() >= {*ENDS, "<|assistant|>", "[gMASK]", "<sop>"}
        if kind is None and chats:
            is_0414 = files.model_config.get("model_type") == "glm4"
            kind = "glm4_0414" if is_0414 else "glm4"
        elif kind is not None and not chats:
            raise UserError(f"{files.place} is not of the kind {kind!r}: it lacks GLM-4's tokens")
        if chats:
            self._calls = JSON_CALLS
        size = 1 + max(self._coder.get_vocab(with_added_tokens=True).values())
        special, eos = _special(ids, files)
        ends = ENDS if chats else [eos]
        super().__init__(files, kind or _HUGGING_FACE, size, ids, special, ends)

    def piece(self, id_: int) -> str:
        return self._coder.id_to_token(id_) or ""

    def _encode(self, text: str) -> list[int]:
        return self._coder.encode(text, add_special_tokens=False).ids

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        # The library's own threads would warn on every process that is forked later.
        return [self._encode(text) for text in texts]

    def _decode(self, ids: list[int], begins: bool) -> str:
        return self._coder.decode(ids, skip_special_tokens=False)

    def _format(self, chat: Chat, options: Mapping[str, object]) -> Prompt:
        if self.kind == _HUGGING_FACE:
            return super()._format(chat, options)
        return glm4_format(self.kind, chat, options)


def _read(files: TokenizerFiles) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        coder = Tokenizer.from_str(files.vocabulary.decode())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no `Exception`
        raise UserError(
            f"{files.place} is no tokenizer.json that can be read: {shown(str(error))}"
        ) from error
    coder.no_truncation()
    coder.no_padding()
    # Spellings of special tokens in a text are text.
    coder.encode_special_tokens = True
    return coder


def _special(ids: Mapping[str, int], files: TokenizerFiles) -> tuple[SpecialTokens, str]:
    """The special tokens by role, and the spelling of eos.

    Raises:
      UserError: the vocabulary lacks one that GLM needs.
    """

    def named(role: str, *others: str) -> str | None:
        value = files.config.get(f"{role}_token")
        value = value.get("content") if isinstance(value, dict) else value
        return next((one for one in (value, *others) if one in ids), None)

    def first(*spellings: str) -> str | None:
        return next((one for one in spellings if one in ids), None)

    eos = named("eos", "<|endoftext|>", "</s>")
    found = {
        "[MASK]": first("[MASK]"),
        "[gMASK]": first("[gMASK]"),
        "[sMASK]": first("[sMASK]"),
        "<sop>": first(*_START),
        "<eop>": first(*_END),
        "eos_token": eos,
    }
    missing = [name for name, spelling in found.items() if spelling is None]
    if missing or eos is None:
        raise UserError(
            f"{files.place} lacks the special tokens {', '.join(missing)}, which GLM's models have"
        )
    mask, gmask, smask, start, end = [ids[one] for one in found.values() if one is not None][:5]
    cls, pad = named("bos", "[CLS]") or eos, named("pad") or eos
    special = SpecialTokens(
        mask, gmask, smask, start, end, cls=ids[cls], eos=ids[eos], pad=ids[pad]
    )
    return special, eos
