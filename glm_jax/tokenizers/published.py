"""The tokenizers of GLM (2021): BERT's word pieces, GPT-2's and RoBERTa's byte pairs, and the
Chinese sentencepiece model. Command tokens (special tokens) have the ids of the published code,
most of them behind the vocabulary.

    files                             [CLS]  [MASK]  start    end  [gMASK] [sMASK] [dBLOCK]
    vocab.txt               (BERT)      101     103  30522  30523    30524   30525    30526
    vocab.json, merges.txt  (GPT-2)   50259   50260  50257  50258    50263   50264    50265
    the same, with <mask>   (RoBERTa)     0   50264  50265  50266    50267   50268    50269
    cog-pretrain.model      (Chinese) 50002   50003  50006  50007    50009   50008    50010
    the same, colliding ids           50002   50003  50006  50007    50007   50008    50009

GLM-10B-Chinese was trained with the colliding ids, where [gMASK] has the id of <|endofpiece|>.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.json_files import parse_object, shown
from glm_jax.remote import as_path
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.byte_pairs import BytePairs
from glm_jax.tokenizers.ids import check_text, id_row
from glm_jax.tokenizers.protocol import SETTINGS, WithoutChat
from glm_jax.tokenizers.wordpiece import WordPieces

CHINESE_MODEL = "cog-pretrain.model"
SENTENCE_MARKS = ".?!;:\n。？！；…"
_SPELLINGS = {
    "mask": "[MASK]",
    "gmask": "[gMASK]",
    "smask": "[sMASK]",
    "start": "<|startofpiece|>",
    "end": "<|endofpiece|>",
    "cls": "[CLS]",
    "eos": "<|endoftext|>",
    "block": "[dBLOCK]",
}


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
    """What the four tokenizers have in common.

    Attributes:
      encode, decode: of text without command tokens.
      piece: the text of an id.
      size: number of ids without command tokens.
      special: the ids of the command tokens.
      spellings: of the command tokens, by role.
      joins: whether decoding puts spaces around command tokens (BERT).
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    piece: Callable[[int], str]
    size: int
    special: SpecialTokens
    spellings: Mapping[str, str]
    joins: bool


class PublishedTokenizer(WithoutChat):
    """One of the four tokenizers.

    Attributes:
      vocab_size: V, command tokens included; published models pad it to a multiple of 128.
      special: the ids of the special tokens; eos and pad have the same id.
      fingerprint: SHA-256 of the files and of `colliding`, in hexadecimal.
      carries_spaces: whether the space in front of a word is part of its token.
    """

    kind = "glm2021"
    frames_texts = True

    def __init__(self, files: Mapping[str, bytes], name: str, colliding: bool = False):
        """Reads a vocabulary.

        Args:
          files: content of the files by name, as in the module's table.
          name: of the tokenizer, for errors.
          colliding: use the colliding ids of GLM-10B-Chinese.

        Raises:
          ValueError: the files are none of the four tokenizers.
        """
        self._files, self._name, self._colliding = dict(files), name, colliding
        try:
            self._vocabulary = _read(files, colliding)
        except (ValueError, KeyError, RuntimeError, OSError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{name} is not a vocabulary of GLM 2021: {error!r}") from error
        self.special = self._vocabulary.special
        self.carries_spaces = "vocab.json" in files
        ids = {role: id_ for role in _SPELLINGS if (id_ := getattr(self.special, role)) is not None}
        self.vocab_size = max(self._vocabulary.size, *(id_ + 1 for id_ in ids.values()))
        spellings = self._vocabulary.spellings
        self._id_of = {spellings[role]: id_ for role, id_ in ids.items()}
        # If two roles have one id, it is spelled as the end token, which is what models produce.
        self._spelling_of = {ids[role]: spellings[role] for role in reversed(list(ids))}
        self._spelling_of[ids["end"]] = spellings["end"]
        self._spelling = re.compile("(" + "|".join(map(re.escape, self._id_of)) + ")")
        digest = hashlib.sha256(b"colliding" if colliding else b"")
        for file in sorted(files):
            digest.update(file.encode() + b"\0" + files[file])
        self.fingerprint = digest.hexdigest()

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Returns the ids of a text; no token is added in front or behind.

        As published, except that command tokens are read only with `allow_special`. White space
        before a mask is dropped.

        Args:
          text: any text.
          allow_special: read the spellings of command tokens as their ids.
        """
        check_text("encode", text, "decode(ids) gives text")
        if not allow_special:
            return self._vocabulary.encode(text)
        ids: list[int] = []
        parts = self._spelling.split(text)
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._id_of[part])
                continue
            follower = parts[index + 1] if index + 1 < len(parts) else ""
            if self._id_of.get(follower) in self.special.masks:
                part = part.rstrip()
            ids += self._vocabulary.encode(part) if part else []
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, without special tokens."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Returns the text of ids as the published code does: without the space before a mask.

        Args:
          ids: ids below `vocab_size`.
          skip_special: leave special tokens out instead of spelling them.

        Raises:
          ValueError: an id outside 0..vocab_size - 1.
        """
        parts: list[str] = []
        run: list[int] = []
        for value in [*id_row("decode", ids, "encode(text), which gives ids"), None]:
            if value is not None and not 0 <= value < self.vocab_size:
                raise ValueError(f"ids must lie in 0..{self.vocab_size - 1}; got {value}")
            if value is not None and value not in self._spelling_of:
                run.append(value)
                continue
            if run:
                parts.append(self._vocabulary.decode(run))
                run = []
            if value is not None and not skip_special:
                parts.append(self._spelling_of[value])
        return (" " if self._vocabulary.joins else "").join(parts)

    def sentence_ends(self) -> np.ndarray:
        """[V] bool: which ids end a sentence."""
        ends = np.zeros(self.vocab_size, np.bool_)
        for id_ in range(self._vocabulary.size):
            piece = self._vocabulary.piece(id_)
            ends[id_] = any(mark in piece for mark in SENTENCE_MARKS)
        ends[list(self._spelling_of)] = False
        return ends

    def save(self, directory: str | Path) -> None:
        """Writes the files into an existing directory, from which `load_tokenizer` reads them."""
        for name, content in self._files.items():
            write_whole(as_path(directory) / name, content)
        settings = json.dumps({"colliding_ids": self._colliding})
        write_whole(as_path(directory) / SETTINGS, settings)


def published_files(path: Path) -> dict[str, bytes] | None:
    """The files of one of the four tokenizers, by name as in the module's table.

    Args:
      path: a directory, or one of the files (`gpt2-vocab.json` has `gpt2-merges.txt` beside it).

    Returns:
      The content of the files; None if `path` holds none of the four.
    """
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in _names_in(path)} or None
    if not path.is_file():
        return None
    if path.name.endswith("vocab.txt"):
        return {"vocab.txt": path.read_bytes()}
    if path.name.endswith("vocab.json"):
        merges = path.with_name(path.name.removesuffix("vocab.json") + "merges.txt")
        if merges.is_file():
            return {"vocab.json": path.read_bytes(), "merges.txt": merges.read_bytes()}
    return {CHINESE_MODEL: path.read_bytes()} if path.name == CHINESE_MODEL else None


def _names_in(directory: Path) -> tuple[str, ...]:
    for names in (("vocab.txt",), ("vocab.json", "merges.txt"), (CHINESE_MODEL,)):
        if all((directory / name).is_file() for name in names):
            return names
    return ()


def _read(files: Mapping[str, bytes], colliding: bool) -> _Vocabulary:
    if colliding and CHINESE_MODEL not in files:
        raise UserError("colliding ids are those of the Chinese model alone")
    if "vocab.txt" in files:
        return _word_pieces(_lines(files["vocab.txt"]))
    if "vocab.json" in files:
        lines = _lines(files["merges.txt"])
        merges = [line.split() for line in lines if line and not line.startswith("#version")]
        return _byte_pairs(_ids(files["vocab.json"].decode()), merges)
    return _chinese(files[CHINESE_MODEL], colliding)


def _lines(content: bytes) -> list[str]:
    """The lines of a file, split only at "\\n": `str.splitlines` would split words like U+2028."""
    text = content.decode()
    if text.partition("\n")[0].endswith("\r"):  # every line ends in CR LF
        text = text.replace("\r\n", "\n")
    return text.removesuffix("\n").split("\n")


def _ids(text: str) -> dict[str, int]:
    """The ids of the pieces in a vocab.json.

    Raises:
      UserError: the ids are not distinct whole numbers from 0 on without large gaps.
    """
    ids = parse_object(text, "vocab.json")
    numbers = {id_ for id_ in ids.values() if type(id_) is int}
    if not ids or len(numbers) < len(ids) or min(numbers) < 0 or max(numbers) > 2 * len(ids) + 1000:
        raise UserError(
            "vocab.json must give each of its pieces an id of its own, counted from 0; got "
            f"{shown(dict(list(ids.items())[:3]))}"
        )
    return ids


def _word_pieces(pieces: list[str]) -> _Vocabulary:
    ids = {piece: id_ for id_, piece in enumerate(pieces)}
    size, pad = len(pieces), ids["[PAD]"]
    if "[UNK]" not in ids:
        raise KeyError("[UNK]")
    coder = WordPieces(pieces)
    special = SpecialTokens(
        mask=ids["[MASK]"],
        cls=ids["[CLS]"],
        eos=pad,
        pad=pad,
        **_following(size, "start", "end", "gmask", "smask", "block"),
    )
    spellings = _SPELLINGS | {"eos": "[PAD]"}
    return _Vocabulary(
        coder.encode, coder.decode, coder.pieces.__getitem__, size, special, spellings, joins=True
    )


def _byte_pairs(ids: dict[str, int], merges: list[list[str]]) -> _Vocabulary:
    size = max(ids.values()) + 1
    if "<mask>" in ids:
        eos = ids["</s>"]
        special = SpecialTokens(
            mask=ids["<mask>"],
            cls=ids["<s>"],
            eos=eos,
            pad=eos,
            **_following(size, "start", "end", "gmask", "smask", "block"),
        )
    else:
        eos = ids["<|endoftext|>"]
        # [SEP] and [UNK] lie between [MASK] and [gMASK]; nothing here uses them.
        special = SpecialTokens(
            eos=eos,
            pad=eos,
            **_following(size, "start", "end", "cls", "mask"),
            **_following(size + 6, "gmask", "smask", "block"),
        )
    coder = BytePairs(ids, merges, "<unk>" if "<unk>" in ids else None)

    def piece(id_: int) -> str:
        return coder.bytes_of(id_).decode("utf-8", errors="replace")

    return _Vocabulary(coder.encode, coder.decode, piece, size, special, _SPELLINGS, joins=False)


def _chinese(model: bytes, colliding: bool) -> _Vocabulary:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    size = processor.get_piece_size()
    # eos, [SEP], [CLS], [MASK], [UNK]; the next id is left out.
    masks = {"gmask": size + 7, "smask": size + 8, "block": size + 9}
    if not colliding:
        masks = {"gmask": size + 9, "smask": size + 8, "block": size + 10}
    special = SpecialTokens(
        eos=size,
        pad=size,
        cls=size + 2,
        mask=size + 3,
        start=size + 6,
        end=size + 7,
        **masks,
    )
    return _Vocabulary(
        processor.encode,
        lambda ids: processor.decode(list(ids)),
        processor.id_to_piece,
        size,
        special,
        _SPELLINGS,
        joins=False,
    )


def _following(first: int, *roles: str) -> dict[str, int]:
    return {role: first + index for index, role in enumerate(roles)}
