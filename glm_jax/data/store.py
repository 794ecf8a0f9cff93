"""The token store: a corpus as memory-mapped ids, read by any number of hosts without TensorFlow.

A directory holds

    store.json           format, vocabulary size, special ids, splits and their sizes, description
    sentence_ends.npy    bool [V]: ids that end a sentence
    SPLIT.tokens         the documents of a split, one after the other (uint16 or int32)
    SPLIT.offsets.npy    int64 [documents + 1]: where each document starts; the last is the end

and is immutable: it is built in a temporary sibling and renamed when complete.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

FORMAT = 1
_INDEX = "store.json"
_SENTENCE_ENDS = "sentence_ends.npy"


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
        description: dict[str, Any],
    ):
        """Opens a temporary directory beside `directory`.

        Args:
          directory: where the store will be; must not exist.
          vocab_size: V.
          special: ids that documents never contain.
          sentence_ends: bool [V].
          description: what the store was made from; JSON values, kept as they are.

        Raises:
          ValueError: `directory` exists, or `sentence_ends` has another length than V.
        """
        self._directory = Path(directory)
        if self._directory.exists():
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
        self._lengths: dict[str, list[int]] = {}
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(
            tempfile.mkdtemp(dir=self._directory.parent, prefix=f".{self._directory.name}.")
        )
        np.save(self._temporary / _SENTENCE_ENDS, sentence_ends)

    def add(self, split: str, documents: Iterable[Sequence[int] | np.ndarray]) -> None:
        """Appends documents to a split, which this call creates where it is new.

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
        """`add` of documents that are joined already.

            ids [10 11 12 13], sizes [3 0 1]  ->  documents [10 11 12] and [13]

        Args:
          split: as `add`.
          ids: [sum(sizes)] integers.
          sizes: [documents] of each.

        Raises:
          ValueError: as `add`.
        """
        if split not in self._files:
            # Stays open until `close`: splits grow in turns.
            self._files[split] = open(self._temporary / f"{split}.tokens", "wb")  # noqa: SIM115
            self._lengths[split] = []
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
        self._files[split].write(ids.astype(self._dtype).tobytes())
        lengths.extend(sizes.tolist())

    def num_documents(self, split: str) -> int:
        """How many a split has so far."""
        return len(self._lengths.get(split, ()))

    def note(self, **values: Any) -> None:
        """Adds to the description."""
        self._description = self._description | values

    def close(self) -> None:
        """Writes offsets and index and puts the store in its place.

        Where another process has finished the same store in the meantime, that one stays.
        """
        sizes = {}
        for split, file in self._files.items():
            file.close()
            offsets = np.concatenate([[0], np.cumsum(self._lengths[split], dtype=np.int64)])
            np.save(self._temporary / f"{split}.offsets.npy", offsets.astype(np.int64))
            sizes[split] = {"documents": len(offsets) - 1, "tokens": int(offsets[-1])}
        index = {
            "format": FORMAT,
            "vocab_size": self._vocab_size,
            "dtype": self._dtype.name,
            "special": dataclasses.asdict(self._special),
            "splits": sizes,
            "description": self._description,
        }
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (self._temporary / _INDEX).write_text(text, encoding="utf-8")
        os.chmod(self._temporary, 0o755)
        try:
            os.rename(self._temporary, self._directory)
        except OSError:
            self.discard()
            if not (self._directory / _INDEX).is_file():
                raise

    def discard(self) -> None:
        """Removes what has been written."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An opened store.

    Attributes:
      vocab_size: V.
      special: the ids that the format inserts.
      sentence_ends: bool [V].
      splits: the documents by split.
      description: what the store was made from.
    """

    vocab_size: int
    special: SpecialTokens
    sentence_ends: np.ndarray
    splits: dict[str, Documents]
    description: dict[str, Any]

    @classmethod
    def open(cls, directory: str | Path) -> "TokenStore":
        """Maps a store into memory.

        Raises:
          ValueError: there is no store at `directory`, or a file of it is missing or damaged.
        """
        directory = Path(directory)
        if not (directory / _INDEX).is_file():
            raise UserError(f"no token store at {str(directory)!r}: {_INDEX} is missing")
        try:
            index = json.loads((directory / _INDEX).read_text(encoding="utf-8"))
            if index["format"] != FORMAT:
                raise ValueError(f"its format is {index['format']}, this version reads {FORMAT}")
            dtype = np.dtype(index["dtype"])
            return cls(
                vocab_size=index["vocab_size"],
                special=SpecialTokens(**index["special"]),
                sentence_ends=_sentence_ends(directory, index["vocab_size"]),
                splits={
                    name: _documents(directory, name, size, dtype)
                    for name, size in index["splits"].items()
                },
                description=index["description"],
            )
        except (KeyError, TypeError, ValueError, EOFError, OSError) as error:
            raise UserError(
                f"the token store {str(directory)!r} is damaged ({error}); remove it, and it is "
                "built anew"
            ) from error


def _sentence_ends(directory: Path, vocab_size: int) -> np.ndarray:
    ends = np.load(directory / _SENTENCE_ENDS)
    if ends.shape != (vocab_size,) or ends.dtype != bool:
        raise ValueError(f"{_SENTENCE_ENDS} is not bool of shape ({vocab_size},)")
    return ends


def _documents(directory: Path, name: str, size: dict[str, int], dtype: np.dtype) -> Documents:
    path = directory / f"{name}.tokens"
    expected = size["tokens"] * dtype.itemsize
    if path.stat().st_size != expected:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes in place of {expected}")
    offsets = np.load(directory / f"{name}.offsets.npy", mmap_mode="r")
    if offsets.shape != (size["documents"] + 1,) or offsets[-1] != size["tokens"]:
        raise ValueError(f"{name}.offsets.npy does not fit store.json")
    # A file of no bytes cannot be mapped.
    tokens = np.memmap(path, dtype, mode="r") if expected else np.zeros(0, dtype)
    return Documents(name, tokens, offsets)
