"""The token store: a corpus as memory-mapped ids, read by any number of hosts without TensorFlow.

A directory holds

    store.json           format, vocabulary size, special ids, splits and their sizes, checksums,
                         fingerprint, description
    sentence_ends.npy    bool [V]: ids that end a sentence
    SPLIT.tokens         the documents of a split, one after the other (uint16 or int32)
    SPLIT.offsets.npy    int64 [documents + 1]: where each document starts; the last is the end

and is immutable: it is built in a temporary sibling and renamed when complete and on the disk. The
fingerprint identifies everything that decides the rows of a run; the description says what the
store was made from.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from glm_jax.data.opening import damaged, opened_store, special_tokens_of
from glm_jax.data.reading import Reading, content_checksum, read_through
from glm_jax.errors import UserError
from glm_jax.files import new_directory
from glm_jax.json_files import JsonObject
from glm_jax.special_tokens import SpecialTokens

# Raised when the files change, or when the same text would give other tokens or other splits.
FORMAT = 2
INDEX = "store.json"
# What it is, in messages.
_KIND = "token store"
_SENTENCE_ENDS = "sentence_ends.npy"
# Allowed names of splits, which become names of files.
_SPLIT = re.compile(r"\w[\w.-]*")


@dataclasses.dataclass(frozen=True)
class Documents:
    """The documents of one split, without [CLS] and eos; document i is tokens[offsets[i:i+2]].

    Attributes:
      name: of the split.
      tokens: [N] uint16 or int32, all documents one after the other.
      offsets: [documents + 1] int64, ascending from 0 to N.
    """

    name: str
    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.tokens)


class StoreWriter:
    """Writes a token store; a context manager.

    with StoreWriter(directory, vocab_size=V, special=special, sentence_ends=ends,
                     description={"source": "my/*.txt"}) as writer:
        writer.add("train", documents)
        writer.add("eval", others)
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        vocab_size: int,
        special: SpecialTokens,
        sentence_ends: np.ndarray,
        description: dict[str, object],
    ):
        """Opens a temporary directory beside `directory`.

        Args:
          directory: where the store will be; must not exist, or be empty.
          vocab_size: V.
          special: ids that documents never contain.
          sentence_ends: [V] bool, true for tokens that end a sentence.
          description: what the store was made from, as JSON values.

        Raises:
          ValueError: `directory` exists, or `sentence_ends` has another length than V.
        """
        self._directory = Path(directory)
        if self._directory.exists() and (
            not self._directory.is_dir() or any(self._directory.iterdir())
        ):
            raise UserError(f"the token store {str(directory)!r} exists already; remove it first")
        sentence_ends = np.asarray(sentence_ends, bool)
        if sentence_ends.shape != (vocab_size,):
            raise ValueError(
                f"sentence_ends must have shape ({vocab_size},); got {sentence_ends.shape}"
            )
        self._vocab_size, self._special, self._description = vocab_size, special, description
        self._dtype = np.dtype(np.uint16 if vocab_size <= 65535 else np.int32)
        self._forbidden = np.zeros(vocab_size, bool)
        self._forbidden[[id_ for id_ in dataclasses.astuple(special) if id_ is not None]] = True
        self._files: dict[str, IO[bytes]] = {}
        self._lengths: dict[str, array[int]] = {}
        self._checksums: dict[str, hashlib._Hash] = {}
        # A hash of each document, to find repeated ones.
        self._hashes: dict[str, array[int]] = {}
        self._whole = new_directory(self._directory, lambda path: (path / INDEX).is_file())
        self._temporary = self._whole.__enter__()
        np.save(self._temporary / _SENTENCE_ENDS, sentence_ends)

    def add(self, split: str, documents: Iterable[Sequence[int] | np.ndarray]) -> None:
        """Appends documents to a split; creates the split if it is new.

        Args:
          split: a name such as "train".
          documents: ids without [CLS] and eos; empty ones are left out.

        Raises:
          ValueError: an id outside 0..V-1, or the id of a special token.
        """
        self.add_joined(split, np.zeros(0, np.int64), np.zeros(0, np.int64))
        for document in documents:
            ids = np.asarray(document, np.int64)
            self.add_joined(split, ids, np.array([len(ids)]))

    def add_joined(self, split: str, ids: np.ndarray, sizes: np.ndarray) -> None:
        """`add`, for documents that are concatenated already.

            ids [10 11 12 13], sizes [3 0 1]  ->  documents [10 11 12] and [13]

        Args:
          split: as `add`.
          ids: [sum(sizes)] integers.
          sizes: [documents] of each.

        Raises:
          ValueError: as `add`.
        """
        if split not in self._files:
            # Stays open until `close`, since splits may grow in turns.
            self._files[split] = open(self._temporary / f"{split}.tokens", "wb")  # noqa: SIM115
            self._lengths[split], self._hashes[split] = array("q"), array("q")
            self._checksums[split] = hashlib.sha256()
        lengths, sizes = self._lengths[split], sizes[sizes > 0]
        wrong = (ids < 0) | (ids >= self._vocab_size)
        wrong |= self._forbidden[np.where(wrong, 0, ids)]
        if wrong.any():
            ends = np.cumsum(sizes)
            index = int(np.searchsorted(ends, np.argmax(wrong), side="right"))
            document = ids[ends[index] - sizes[index] : ends[index]]
            raise ValueError(
                f"document {len(lengths) + index} of split {split!r} must hold ids of text in "
                f"0..{self._vocab_size - 1} and no special tokens; got {document.tolist()[:20]}"
            )
        content = ids.astype(self._dtype).tobytes()
        self._files[split].write(content)
        self._checksums[split].update(content)
        offset = 0
        for size in (sizes * self._dtype.itemsize).tolist():
            self._hashes[split].append(hash(content[offset : offset + size]))
            offset += size
        lengths.extend(sizes.tolist())

    def num_documents(self, split: str) -> int:
        """The number of documents that a split has so far."""
        return len(self._lengths.get(split, ()))

    def note(self, **values: object) -> None:
        """Adds to the description."""
        self._description = self._description | values

    def repeated(self) -> dict[str, float]:
        """The share of each split's documents that repeat an earlier one.

        {"train": 0.9, "eval": 0.0, "eval in train": 0.5}; "eval in train" is the share of the
        documents of "eval" that are in "train" too.
        """
        hashes = {split: np.frombuffer(found, np.int64) for split, found in self._hashes.items()}
        shares = {
            split: 1 - len(np.unique(found)) / len(found)
            for split, found in hashes.items()
            if len(found)
        }
        if {"train", "eval"} <= set(shares):
            shares["eval in train"] = float(np.isin(hashes["eval"], hashes["train"]).mean())
        return shares

    def close(self) -> None:
        """Writes offsets and index, and renames the store to its final directory.

        If another process has finished the same store in the meantime, that one is kept.
        """
        sizes = {}
        ends = np.load(self._temporary / _SENTENCE_ENDS)
        checksums = {_SENTENCE_ENDS: content_checksum(ends)}
        for split, file in self._files.items():
            file.close()
            lengths = np.frombuffer(self._lengths[split], np.int64)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            np.save(self._temporary / f"{split}.offsets.npy", offsets)
            sizes[split] = {"documents": len(offsets) - 1, "tokens": int(offsets[-1])}
            checksums[f"{split}.tokens"] = self._checksums[split].hexdigest()
            checksums[f"{split}.offsets.npy"] = content_checksum(offsets)
        index = {
            "format": FORMAT,
            "vocab_size": self._vocab_size,
            "dtype": self._dtype.name,
            "special": dataclasses.asdict(self._special),
            "splits": sizes,
            "checksums": checksums,
            "description": self._description,
        }
        index["fingerprint"] = _fingerprint(index)
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (self._temporary / INDEX).write_text(text, encoding="utf-8")
        self._whole.__exit__(None, None, None)

    def discard(self) -> None:
        """Removes what has been written."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An opened store.

    Attributes:
      vocab_size: V.
      special: the ids of special tokens.
      sentence_ends: [V] bool, true for tokens that end a sentence.
      splits: the documents by split.
      description: what the store was made from.
      fingerprint: of everything that decides rows, in hexadecimal: the same wherever and whenever
        the store was built from the same text; "" for a store that is only in memory.
      reading: the verification of its files, in progress or done; None for a store in memory.
    """

    vocab_size: int
    special: SpecialTokens
    sentence_ends: np.ndarray
    splits: dict[str, Documents]
    description: JsonObject
    fingerprint: str = ""
    reading: Reading | None = None

    @classmethod
    def open(cls, directory: str | Path) -> "TokenStore":
        """Maps a store into memory and verifies its checksums.

        A small store is read before this returns, a large one in the background; `check` raises
        what has been found.

        Raises:
          UserError: there is no store at `directory`, or a file of it is missing or damaged.
        """
        store = opened_store(Path(directory), _KIND, INDEX, FORMAT, _fingerprint, _opened)
        store.check()
        return store

    def check(self) -> None:
        """Raises what the verification of the files has found so far.

        Raises:
          UserError: a file is damaged.
        """
        if self.reading is not None and self.reading.trouble is not None:
            raise damaged(_KIND, self.reading.directory, self.reading.trouble)


def _fingerprint(index: JsonObject) -> str:
    """The fingerprint of everything that decides rows: not of paths, times or names."""
    parts = {name: index[name] for name in ("vocab_size", "dtype", "special", "splits")}
    parts["checksums"] = index["checksums"]
    parts["tokenizer"] = index["description"].get("tokenizer_fingerprint")
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _opened(directory: Path, index: JsonObject) -> TokenStore:
    """Opens the files; raises KeyError, TypeError, ValueError or OSError if one does not fit."""
    vocab_size, dtype = index["vocab_size"], np.dtype(index["dtype"])
    if dtype not in (np.uint16, np.int32):
        raise ValueError(f"its ids are {dtype}")
    special = special_tokens_of(index)
    splits = {
        name: _documents(directory, name, size, dtype) for name, size in index["splits"].items()
    }
    ends = _sentence_ends(directory, vocab_size)
    if content_checksum(ends) != index["checksums"][_SENTENCE_ENDS]:
        raise ValueError(f"{_SENTENCE_ENDS} is not what was written: its checksum differs")
    return TokenStore(
        vocab_size=vocab_size,
        special=special,
        sentence_ends=ends,
        splits=splits,
        description=index["description"],
        fingerprint=index["fingerprint"],
        reading=read_through(
            directory,
            [f"{split}.tokens" for split in sorted(splits)],
            [f"{split}.offsets.npy" for split in sorted(splits)],
            vocab_size,
            dtype,
            index["checksums"],
        ),
    )


def _sentence_ends(directory: Path, vocab_size: int) -> np.ndarray:
    ends = np.load(directory / _SENTENCE_ENDS)
    if ends.shape != (vocab_size,) or ends.dtype != bool:
        raise ValueError(f"{_SENTENCE_ENDS} is not bool of shape ({vocab_size},)")
    return ends


def _documents(directory: Path, name: str, size: dict[str, int], dtype: np.dtype) -> Documents:
    if not _SPLIT.fullmatch(name):
        raise ValueError(f"{name!r} is no split's name")
    path = directory / f"{name}.tokens"
    expected = size["tokens"] * dtype.itemsize
    if path.stat().st_size != expected:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes instead of {expected}")
    offsets = np.load(directory / f"{name}.offsets.npy", mmap_mode="r")
    if (offsets.shape, offsets.dtype) != ((size["documents"] + 1,), np.int64) or (
        offsets[-1] != size["tokens"]
    ):
        raise ValueError(f"{name}.offsets.npy does not fit store.json")
    if offsets[0] != 0 or not (offsets[1:] > offsets[:-1]).all():
        raise ValueError(f"{name}.offsets.npy does not ascend from 0")
    # A file of no bytes cannot be mapped.
    tokens = np.memmap(path, dtype, mode="r") if expected else np.zeros(0, dtype)
    return Documents(name, tokens, offsets)
