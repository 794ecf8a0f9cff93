"""The tokenizers of ChatGLM2 and ChatGLM3, `tokenizer.model`: sentencepiece with bytes.

Both have the same pieces. Special tokens have the ids behind them, so that no text becomes one:

    64789 [MASK]  64790 [gMASK]  64791 [sMASK]  64792 sop  64793 eop
    64794 <|system|>  64795 <|user|>  64796 <|assistant|>  64797 <|observation|>     ChatGLM3 alone
"""

from collections.abc import Mapping, Sequence

from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers import chat_formats
from glm_jax.tokenizers.calls import PYTHON_CALLS
from glm_jax.tokenizers.chat_formats import Chat, Prompt
from glm_jax.tokenizers.chat_tokenizer import ChatTokenizer
from glm_jax.tokenizers.files import TokenizerFiles
from glm_jax.tokenizers.messages import checked_messages
from glm_jax.tokenizers.protocol import Messages
from glm_jax.tokenizers.sentencepieces import processor

_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_ROLES = tuple(f"<|{role}|>" for role in ("system", "user", "assistant", "observation"))


class _BehindPieces(ChatTokenizer):
    """What the two have in common: a sentencepiece model, and special tokens behind its pieces."""

    def __init__(
        self, files: TokenizerFiles, kind: str, behind: Sequence[str], ends: Sequence[str]
    ):
        """Args:
        files: with the vocabulary `tokenizer.model`.
        kind: "chatglm2" or "chatglm3".
        behind: the special tokens behind the pieces.
        ends: those that end an answer.

        Raises:
          UserError: not a sentencepiece model.
        """
        self._pieces = processor(files.vocabulary, files.place)
        size = self._pieces.vocab_size()
        # Padding has no piece of its own.
        ids = {"<unk>": 0, "<s>": self._pieces.bos_id(), "</s>": self._pieces.eos_id()}
        ids |= {spelling: size + index for index, spelling in enumerate(behind)}
        mask, gmask, smask, start, end = (ids[one] for one in _SPECIAL)
        special = SpecialTokens(
            mask, gmask, smask, start, end, cls=ids["<s>"], eos=ids["</s>"], pad=ids["<unk>"]
        )
        super().__init__(files, kind, size + len(behind), ids, special, ends)

    def piece(self, id_: int) -> str:
        return self._spelling_of.get(id_) or self._pieces.id_to_piece(id_)

    def _encode(self, text: str) -> list[int]:
        return self._pieces.encode(text)

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        return self._pieces.encode(texts)

    def _decode(self, ids: list[int], begins: bool) -> str:
        return self._pieces.decode(ids)


class ChatGLM2Tokenizer(_BehindPieces):
    """Of ChatGLM2 and CodeGeeX2."""

    _spells_prompts = False

    def __init__(self, files: TokenizerFiles):
        super().__init__(files, "chatglm2", _SPECIAL, ["</s>"])

    def next_turn(self, messages: Messages) -> list[int]:
        """What follows the model's last answer where its cache holds all before, as published.

            hi, hello, bye   ->   ids of "\\n\\n[Round 2]\\n\\n问：bye\\n\\n答：" without the first

        Args:
          messages: all of the chat, the last one the user's.
        """
        text = chat_formats.chatglm2_next(Chat(checked_messages(messages), None, True))
        return self._encode(text)[1:]  # sentencepiece begins with a space

    def _format(self, chat: Chat, options: Mapping[str, object]) -> Prompt:
        return chat_formats.chatglm2(chat)


class ChatGLM3Tokenizer(_BehindPieces):
    """Of ChatGLM3."""

    _calls = PYTHON_CALLS

    def __init__(self, files: TokenizerFiles):
        ends = ["</s>", "<|user|>", "<|observation|>"]
        super().__init__(files, "chatglm3", (*_SPECIAL, *_ROLES), ends)

    def _format(self, chat: Chat, options: Mapping[str, object]) -> Prompt:
        return chat_formats.chatglm3(chat)
