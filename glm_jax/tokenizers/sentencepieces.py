"""Tokenizers trained for this package: sentencepiece models with control symbols.

tokenizer = load_tokenizer("bundled")
tokenizer.encode("the [MASK] was")                      ▁the ▁ [ M A S K ] ▁was
tokenizer.encode("the [MASK] was", allow_special=True)  ▁the [MASK] ▁was
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.remote import as_path
from glm_jax.special_tokens import OPTIONAL, SPELLINGS, SpecialTokens
from glm_jax.tokenizers.ids import check_text, id_row
from glm_jax.tokenizers.protocol import WithoutChat

# A token that contains one of these ends a sentence (the reference's rule, with its Chinese marks).
SENTENCE_MARKS = ".?!;:\n。？！；…"

FILE_NAME = "tokenizer.model"

# Appended to a serialised model, this overrides its add_dummy_prefix and remove_extra_whitespaces
# with false: protobuf merges a message that occurs twice, and the later scalar wins.
_CONTINUE = b"\x1a\x04\x18\x00\x20\x00"


class SentencePieceTokenizer(WithoutChat):
    """A sentencepiece model whose special tokens are control symbols.

    Attributes:
      vocab_size: V, number of ids.
      special: the ids of the special tokens.
      fingerprint: SHA-256 of the model file, in hexadecimal.
      carries_spaces: whether the space in front of a word is part of its token.
    """

    kind = "sentencepiece"
    carries_spaces = True
    frames_texts = True

    def __init__(self, model: bytes, name: str = "the sentencepiece model"):
        """Reads a serialised sentencepiece model.

        Args:
          model: the content of a model file.
          name: of the model, for errors.

        Raises:
          ValueError: not a sentencepiece model, or one that lacks a special token.
        """
        self._model, self._name = model, name
        self._whole = processor(model, name)
        # Reads text behind a special token: no space is added in front of it or removed.
        self._behind = processor(model + _CONTINUE, name)
        self.vocab_size: int = self._whole.vocab_size()
        self.special = _special_tokens(self._whole, name)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        ids = {
            role: id_ for role, id_ in dataclasses.asdict(self.special).items() if id_ is not None
        }
        self._id_of_spelling = {SPELLINGS[role]: id_ for role, id_ in ids.items()}
        self._spelling_of_id = {id_: spelling for spelling, id_ in self._id_of_spelling.items()}
        self._spellings = re.compile("(" + "|".join(map(re.escape, self._id_of_spelling)) + ")")

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Returns the ids of a text; no token is added in front or behind.

        In a training row a mask replaces whole tokens, and a token includes the space on its left.
        So spaces before a mask are dropped. Text after a mask is read as the middle of a text:
        "▁was" keeps its space, and no space is added in front of ", was".

            encode("the light [MASK] was good", allow_special=True)
                -> ▁the ▁light [MASK] ▁was ▁good
            encode("[CLS]the light was [MASK].", allow_special=True)
                -> [CLS] ▁the ▁light ▁was [MASK] .
            encode("床前[MASK]光", allow_special=True)
                -> ▁ 床 前 [MASK] 光

        Args:
          text: any text.
          allow_special: read the spellings of special tokens (`SPELLINGS`) as their ids; False:
            they are ordinary characters.
        """
        check_text("encode", text, "decode(ids) gives text")
        if not allow_special:
            return self._whole.encode(text)
        ids: list[int] = []
        # Odd parts are spellings, even parts the text between them.
        parts = self._spellings.split(text)
        begins = True
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._id_of_spelling[part])
                begins = begins and ids[-1] == self.special.cls
                continue
            follower = parts[index + 1] if index + 1 < len(parts) else ""
            if self._id_of_spelling.get(follower) in self.special.masks:
                part = part.rstrip(" ")
            ids += self._reader(begins).encode(part)
            begins = begins and part == ""
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, without special tokens; several times faster than one by one."""
        if isinstance(texts, str):
            raise UserError("encode_batch takes a list of texts and got one text; use encode")
        return self._whole.encode(list(texts))

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Returns the text of ids; the inverse of `encode(text, allow_special=True)`.

        A space is put in front of a mask that follows a word, as one would write it:

            ▁the ▁light [MASK] ▁was ▁good -> "the light [MASK] was good"

        Args:
          ids: ids below `vocab_size`.
          skip_special: leave special tokens out instead of spelling them.

        Raises:
          ValueError: an id outside 0..vocab_size - 1.
        """
        text = ""
        run: list[int] = []  # ordinary ids since the last special one
        begins = True
        for id_ in id_row("decode", ids, "encode(text), which gives ids"):
            if not 0 <= id_ < self.vocab_size:
                raise ValueError(f"ids must lie in 0..{self.vocab_size - 1}; got {id_}")
            if id_ not in self._spelling_of_id:
                run.append(id_)
                continue
            words = self._reader(begins).decode(run)
            space = " " if id_ in self.special.masks and _wants_space(words) else ""
            text += words if skip_special else words + space + self._spelling_of_id[id_]
            begins = begins and not run and id_ == self.special.cls
            run = []
        return text + self._reader(begins).decode(run)

    def sentence_ends(self) -> np.ndarray:
        """[V] bool: which ids end a sentence; those whose text holds one of `SENTENCE_MARKS`."""
        ends = np.zeros(self.vocab_size, np.bool_)
        for id_ in range(self.vocab_size):
            piece = self._whole.id_to_piece(id_)
            if self._whole.is_byte(id_):
                piece = chr(int(piece[1:-1], 16))
            ends[id_] = any(mark in piece for mark in SENTENCE_MARKS)
        ends[list(self._spelling_of_id)] = False
        return ends

    def save(self, directory: str | Path) -> None:
        """Writes the model file as `tokenizer.model` into an existing directory."""
        write_whole(as_path(directory) / FILE_NAME, self._model)

    def _reader(self, begins: bool) -> sentencepiece.SentencePieceProcessor:
        """The processor for a part of a text; `begins`: nothing but [CLS] precedes it."""
        return self._whole if begins else self._behind


def processor(model: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    """What encodes and decodes by a serialised model.

    Raises:
      UserError: it is none.
    """
    if not model:
        raise UserError(f"{name} is empty, not a sentencepiece model")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{name} is not a sentencepiece model") from error


def has_control_symbols(model: bytes) -> bool:
    """Whether a serialised model is one of this package's kind; none at all counts as one."""
    try:
        return not _roles(processor(model, "it"))[1]
    except UserError:
        return True


def _special_tokens(processor: sentencepiece.SentencePieceProcessor, name: str) -> SpecialTokens:
    ids, missing = _roles(processor)
    if missing:
        raise UserError(
            f"{name} lacks the control symbols {', '.join(missing)}; train it with "
            "control_symbols (user-defined symbols would be matched in raw text); of ChatGLM2 or "
            'ChatGLM3, say kind="chatglm2" or kind="chatglm3"'
        )
    return SpecialTokens(**ids)


def _roles(processor: sentencepiece.SentencePieceProcessor) -> tuple[dict[str, int], list[str]]:
    """The control symbol of each role, eos and pad may be sentencepiece's own; what is missing."""
    ids = {"eos": processor.eos_id(), "pad": processor.pad_id()}
    missing = []
    for role, spelling in SPELLINGS.items():
        id_ = processor.piece_to_id(spelling)
        if processor.id_to_piece(id_) == spelling and processor.is_control(id_):
            ids[role] = id_
        elif ids.get(role, -1) < 0 and role not in OPTIONAL:
            missing.append(spelling)
    return ids, missing


def _wants_space(text: str) -> bool:
    """Whether a space belongs behind a text: not after white space, not in Chinese."""
    return text != "" and not text[-1].isspace() and ord(text[-1]) < 0x2E80
