"""The tokenizer of ChatGLM-6B, `ice_text.model`: sentencepiece, with pieces for white space.

    "def f():\\n    x\\ty"   ->   ▁def ▁f(): <n> <|blank_4|> x <|tab|> y

As published, full-width punctuation becomes ASCII, and white space at the ends of a text is lost.
Files of version 1.0 have 20,000 ids of images in front of the pieces, all other ids behind them.
"""

import re
from collections.abc import Mapping, Sequence

from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers import chat_formats
from glm_jax.tokenizers.chat_formats import Chat, Prompt
from glm_jax.tokenizers.chat_tokenizer import ChatTokenizer, required
from glm_jax.tokenizers.files import TokenizerFiles
from glm_jax.tokenizers.ids import check_text
from glm_jax.tokenizers.piece_types import as_control
from glm_jax.tokenizers.protocol import Messages
from glm_jax.tokenizers.sentencepieces import processor

_IMAGES_OF_1_0 = 20_000
_LONGEST_BLANK = 80
# The special tokens that are pieces; those which a vocabulary lacks are left out.
_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<ENC>", "<dBLOCK>", "<unused_0>")
_CONTROL = ("<unk>", "<s>", "</s>", "<pad>")
_BLANK = re.compile(r"<\|blank_(\d{1,2})\|>")
_SPACES = re.compile(f" {{2,{_LONGEST_BLANK}}}")
# ASCII mark, full-width mark: in an answer the second stands beside Chinese characters.
_MARKS = dict(zip(",!:;?", "，！：；？", strict=True))
_BESIDE_CHINESE = re.compile("(?<=[\u4e00-\u9fff])[,!:;?]|[,!:;?](?=[\u4e00-\u9fff])")


class ChatGLM6BTokenizer(ChatTokenizer):
    """Of ChatGLM-6B; `<n>`, `<|tab|>` and `<|blank_5|>` in a text are white space, as published."""

    _spells_prompts = False

    def __init__(self, files: TokenizerFiles):
        """Args:
        files: with the vocabulary `ice_text.model`.

        Raises:
          UserError: not a sentencepiece model, or one without the special tokens.
        """
        # As published, "[gMASK]" in any text is the token. This one makes it of no text.
        self._published = processor(files.vocabulary, files.place)
        self._pieces = processor(as_control(files.vocabulary, _SPECIAL), files.place)
        known = {self._pieces.id_to_piece(id_): id_ for id_ in range(self._pieces.vocab_size())}
        self.num_image_tokens = _num_image_tokens(files, known.get("<sop>"))
        own = {one: known[one] for one in (*_SPECIAL, *_CONTROL) if one in known}
        ids = {one: id_ + self.num_image_tokens for one, id_ in own.items()}
        names = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<pad>")
        mask, gmask, smask, start, end, pad = required(ids, files.place, *names)
        special = SpecialTokens(
            mask, gmask, smask, start, end, cls=ids.get("<s>", start), eos=end, pad=pad
        )
        size = self.num_image_tokens + self._pieces.vocab_size()
        super().__init__(files, "chatglm", size, ids, special, ends=["<eop>"])

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Returns the ids of a text; with `allow_special` exactly those of the published code."""
        if not allow_special:
            return super().encode(text)
        check_text("encode", text, "decode(ids) gives text")
        return self._moved(self._published.encode(_written(text)))

    def piece(self, id_: int) -> str:
        own = id_ - self.num_image_tokens
        return f"<image_{id_}>" if own < 0 else self._published.id_to_piece(own)

    def read_answer(self, ids: Sequence[int] | str, tools: Messages | None = None) -> JsonObject:
        """As of all; full-width punctuation is put back beside Chinese characters.

        "你好! ok, yes"   ->   {"role": "assistant", "content": "你好！ ok, yes"}
        """
        message = super().read_answer(ids, tools)
        content = _BESIDE_CHINESE.sub(lambda mark: _MARKS[mark[0]], message["content"])
        return {**message, "content": content}

    def _encode(self, text: str) -> list[int]:
        return self._moved(self._pieces.encode(_written(text)))

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        return list(map(self._moved, self._pieces.encode(list(map(_written, texts)))))

    def _decode(self, ids: list[int], begins: bool) -> str:
        text, run = "", list[int]()
        for id_ in [*ids, None]:
            if id_ is not None and id_ >= self.num_image_tokens:
                run.append(id_ - self.num_image_tokens)
                continue
            # Behind another piece, sentencepiece keeps the space in front of a word.
            behind = [] if begins and not text else [self._pieces.piece_to_id("<n>")]
            decoded = self._published.decode([*behind, *run])
            text += _read(decoded.removeprefix("<n>") if behind else decoded)
            text += "" if id_ is None else self.piece(id_)
            run = []
        return text

    def _format(self, chat: Chat, options: Mapping[str, object]) -> Prompt:
        return chat_formats.chatglm(chat)

    def _moved(self, ids: list[int]) -> list[int]:
        return [id_ + self.num_image_tokens for id_ in ids]


def _written(text: str) -> str:
    """White space as pieces: "a\\n  b" -> "a<n><|blank_2|>b"."""
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    return _SPACES.sub(lambda spaces: f"<|blank_{len(spaces[0])}|>", text)


def _read(text: str) -> str:
    text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
    return _BLANK.sub(lambda found: " " * int(found[1]), text)


def _num_image_tokens(files: TokenizerFiles, sop: int | None) -> int:
    """Ids of images in front: as tokenizer_config.json says, else as config.json lets one tell."""
    given = files.config.get("num_image_tokens")
    if given is None:
        start = files.model_config.get("bos_token_id")
        moved = sop is not None and start == sop + _IMAGES_OF_1_0
        return _IMAGES_OF_1_0 if moved else 0
    if type(given) is not int or not 0 <= given <= 1_000_000:
        raise UserError(
            f"num_image_tokens in the tokenizer_config.json of {files.place} must be a number "
            f"from 0 to 1,000,000; got {short(given)}"
        )
    return given
