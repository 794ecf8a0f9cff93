"""The example store: examples for tuning as memory-mapped arrays, read without a tokenizer.

A directory holds

    examples.json                format, vocabulary size, special ids, splits and their sizes,
                                 checksums, fingerprint, description
    SPLIT.tokens, SPLIT.targets  the ids of all examples of a split, one after the other (uint16 or
                                 int32)
    SPLIT.learnt                 bool per token
    SPLIT.positions, SPLIT.block_positions   int32 per token
    SPLIT.offsets.npy            int64 [examples + 1]: where each example starts, and the end
    SPLIT.prefix.npy             int32 [examples]: tokens of part A
    SPLIT.origins.npy            int64 [examples, 2]: number of the file, and line, that it is from
    SPLIT.margins.npy            float32 [examples], of pairs that have margins

and is immutable, as a token store is (`glm_jax.data.store`): built in a temporary sibling, renamed
when complete, verified when opened. The fingerprint identifies all that decides rows; files and
lines do not, they serve messages alone.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from array import array
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from glm_jax.data.examples.example import FIELDS, Example
from glm_jax.data.opening import damaged, opened_store, special_tokens_of
from glm_jax.data.reading import Reading, content_checksum, read_through
from glm_jax.errors import UserError
from glm_jax.files import new_directory
from glm_jax.json_files import JsonObject
from glm_jax.special_tokens import SpecialTokens

# Raised when the files change, or when the same messages would give other examples or splits.
FORMAT = 1
INDEX = "examples.json"
# What it is, in messages.
_KIND = "store of examples"
_SPLIT = re.compile(r"\w[\w.-]*")
_IDS = ("tokens", "targets")
_PER_EXAMPLE = ("offsets", "prefix", "origins")
_SHAPES = {
    "offsets": np.int64,
    "prefix": np.int32,
    "origins": np.int64,
    "margins": np.float32,
}


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of one split; of example i the tokens are tokens[offsets[i] : offsets[i + 1]].

    Attributes:
      name: of the split.
      tokens, targets: [N] uint16 or int32, of all examples.
      learnt: [N] bool.
      positions, block_positions: [N] int32.
      offsets: [examples + 1] int64, ascending from 0 to N.
      prefix: [examples] int32.
      origins: [examples, 2] int64, number of the file and the line in it, from 0 and from 1.
      margins: [examples] float32, those of pairs; None: they have none.
    """

    name: str
    tokens: np.ndarray
    targets: np.ndarray
    learnt: np.ndarray
    positions: np.ndarray
    block_positions: np.ndarray
    offsets: np.ndarray
    prefix: np.ndarray
    origins: np.ndarray
    margins: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Example:
        """One example, its arrays copied."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        inside = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        fields = {field: np.array(getattr(self, field)[inside]) for field in FIELDS}
        margin = None if self.margins is None else float(self.margins[index])
        return Example(**fields, prefix=int(self.prefix[index]), margin=margin)


class ExampleWriter:
    """Writes an example store; a context manager.

    with ExampleWriter(directory, vocab_size=V, special=special, description={..}) as writer:
        writer.add("train", [example], [(0, 7)])       line 7 of the first file
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        vocab_size: int,
        special: SpecialTokens,
        description: JsonObject,
    ):
        """Opens a temporary directory beside `directory`.

        Args:
          directory: where the store will be; must not exist, or be empty.
          vocab_size: V.
          special: the special ids of the tokenizer; examples hold them, as texts of a token store
            do not.
          description: what the store is made from, as JSON values.

        Raises:
          UserError: `directory` exists.
        """
        self._directory = Path(directory)
        if self._directory.exists() and (
            not self._directory.is_dir() or any(self._directory.iterdir())
        ):
            raise UserError(f"the store {str(directory)!r} exists already; remove it first")
        self._vocab_size, self._special, self._description = vocab_size, special, description
        self._dtypes = _dtypes(vocab_size)
        self._files: dict[str, IO[bytes]] = {}
        self._checksums: dict[str, hashlib._Hash] = {}
        self._lengths: dict[str, array[int]] = {}
        self._prefix: dict[str, array[int]] = {}
        self._origins: dict[str, array[int]] = {}
        self._margins: dict[str, array[float]] = {}
        self._whole = new_directory(self._directory, lambda path: (path / INDEX).is_file())
        self._temporary = self._whole.__enter__()

    def add(
        self, split: str, examples: Iterable[Example], origins: Iterable[tuple[int, int]]
    ) -> None:
        """Appends examples to a split; creates the split if it is new.

        Args:
          split: a name such as "train".
          examples: in order.
          origins: number of the file and line of each.

        Raises:
          ValueError: an id outside 0..V-1.
        """
        self._open(split)
        chosen, places = list(examples), list(origins)
        if len(chosen) != len(places):
            raise ValueError(f"{len(chosen)} examples must have as many origins; got {len(places)}")
        for example, place in zip(chosen, places, strict=True):
            self._lengths[split].append(len(example))
            self._prefix[split].append(example.prefix)
            self._origins[split].extend(place)
            if example.margin is not None:
                self._margins[split].append(example.margin)
        for field in FIELDS:
            if not chosen:
                break
            values = np.concatenate([getattr(example, field) for example in chosen])
            if field in _IDS and (values.min() < 0 or values.max() >= self._vocab_size):
                raise ValueError(
                    f"ids of examples must lie in 0..{self._vocab_size - 1}; got "
                    f"{values.min()}..{values.max()}"
                )
            content = values.astype(self._dtypes[field]).tobytes()
            self._files[f"{split}.{field}"].write(content)
            self._checksums[f"{split}.{field}"].update(content)

    def num_examples(self, split: str) -> int:
        """The number of examples that a split has so far."""
        return len(self._lengths.get(split, ()))

    def note(self, **values: object) -> None:
        """Adds to the description."""
        self._description = self._description | values

    def close(self) -> None:
        """Writes the arrays and the index, and renames the store to its final directory."""
        checksums: dict[str, str] = {}
        sizes: dict[str, dict[str, int]] = {}
        for split, lengths in self._lengths.items():
            counted = np.frombuffer(lengths, np.int64)
            arrays = {
                "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(counted)]),
                "prefix": np.frombuffer(self._prefix[split], np.int64).astype(np.int32),
                "origins": np.frombuffer(self._origins[split], np.int64).reshape(-1, 2),
            }
            if margins := self._margins[split]:
                if len(margins) != len(counted):
                    raise ValueError(f"{len(margins)} of {len(counted)} examples have a margin")
                arrays["margins"] = np.array(margins, np.float32)
            sizes[split] = {"examples": len(counted), "tokens": int(counted.sum())}
            for name, values in arrays.items():
                np.save(self._temporary / f"{split}.{name}.npy", values)
                checksums[f"{split}.{name}.npy"] = content_checksum(values)
        for name, file in self._files.items():
            file.close()
            checksums[name] = self._checksums[name].hexdigest()
        index = {
            "format": FORMAT,
            "vocab_size": self._vocab_size,
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

    def __enter__(self) -> "ExampleWriter":
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

    def _open(self, split: str) -> None:
        if split in self._lengths:
            return
        if not _SPLIT.fullmatch(split):
            raise ValueError(f"{split!r} is no split's name")
        self._lengths[split] = array("q")
        self._prefix[split], self._origins[split] = array("q"), array("q")
        self._margins[split] = array("d")
        for field in FIELDS:
            name = f"{split}.{field}"
            # Stays open until `close`, since splits may grow in turns.
            self._files[name] = open(self._temporary / name, "wb")  # noqa: SIM115
            self._checksums[name] = hashlib.sha256()


@dataclasses.dataclass(frozen=True)
class ExampleStore:
    """An opened store.

    Attributes:
      vocab_size: V.
      special: the ids of special tokens.
      splits: the examples by split.
      description: what the store was made from; "files" has their names, in the order that
        `Examples.origins` counts.
      fingerprint: of everything that decides rows, in hexadecimal: the same wherever and whenever
        the store was built from the same messages.
      reading: the verification of its files, in progress or done.
    """

    vocab_size: int
    special: SpecialTokens
    splits: dict[str, Examples]
    description: JsonObject
    fingerprint: str = ""
    reading: Reading | None = None

    @classmethod
    def open(cls, directory: str | Path) -> "ExampleStore":
        """Maps a store into memory and verifies its checksums; see `TokenStore.open`.

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

    def place(self, split: str, index: int) -> str:
        """Where an example is from: "my/a.jsonl line 7"."""
        file, line = self.splits[split].origins[index].tolist()
        files = self.description.get("files", [])
        return place(str(files[file]["name"]) if 0 <= file < len(files) else "file", line)


def place(file: str, line: int) -> str:
    """Where an object of a file stands: "a.jsonl line 7", or "b.json item 2" of a list."""
    return f"{file} {'item' if file.endswith('.json') else 'line'} {line}"


def _dtypes(vocab_size: int) -> dict[str, np.dtype]:
    ids = np.dtype(np.uint16 if vocab_size <= 65535 else np.int32)
    whole = np.dtype(np.int32)
    return {
        "tokens": ids,
        "targets": ids,
        "learnt": np.dtype(np.bool_),
        "positions": whole,
        "block_positions": whole,
    }


def _fingerprint(index: JsonObject) -> str:
    """The fingerprint of everything that decides rows: not of paths, lines, times or names."""
    parts = {name: index[name] for name in ("vocab_size", "special", "splits")}
    parts["checksums"] = {
        name: digest
        for name, digest in index["checksums"].items()
        if not name.endswith(".origins.npy")
    }
    parts["tokenizer"] = index["description"].get("tokenizer_fingerprint")
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _opened(directory: Path, index: JsonObject) -> ExampleStore:
    """Opens the files; raises KeyError, TypeError, ValueError or OSError if one does not fit."""
    vocab_size, special = index["vocab_size"], special_tokens_of(index)
    names = sorted(index["splits"])
    splits = {name: _examples(directory, name, index, vocab_size) for name in names}
    others = [f"{name}.{field}" for name in names for field in FIELDS if field not in _IDS]
    others += [f"{name}.{field}.npy" for name in names for field in _per_example(index, name)]
    return ExampleStore(
        vocab_size=vocab_size,
        special=special,
        splits=splits,
        description=index["description"],
        fingerprint=index["fingerprint"],
        reading=read_through(
            directory,
            [f"{name}.{field}" for name in names for field in _IDS],
            others,
            vocab_size,
            _dtypes(vocab_size)["tokens"],
            index["checksums"],
        ),
    )


def _per_example(index: JsonObject, split: str) -> tuple[str, ...]:
    has_margins = f"{split}.margins.npy" in index["checksums"]
    return (*_PER_EXAMPLE, *["margins"] * has_margins)


def _examples(directory: Path, name: str, index: JsonObject, vocab_size: int) -> Examples:
    if not _SPLIT.fullmatch(name):
        raise ValueError(f"{name!r} is no split's name")
    size = index["splits"][name]
    count, tokens = size["examples"], size["tokens"]
    arrays = {}
    for field, dtype in _dtypes(vocab_size).items():
        path = directory / f"{name}.{field}"
        expected = tokens * dtype.itemsize
        if path.stat().st_size != expected:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes instead of {expected}")
        # A file of no bytes cannot be mapped.
        arrays[field] = np.memmap(path, dtype, mode="r") if expected else np.zeros(0, dtype)
    shapes = {
        "offsets": (count + 1,),
        "prefix": (count,),
        "origins": (count, 2),
        "margins": (count,),
    }
    for field in _per_example(index, name):
        array = np.load(directory / f"{name}.{field}.npy", mmap_mode="r")
        if (array.shape, array.dtype) != (shapes[field], _SHAPES[field]):
            raise ValueError(f"{name}.{field}.npy does not fit {INDEX}")
        arrays[field] = array
    sizes = np.diff(arrays["offsets"])
    if arrays["offsets"][0] != 0 or arrays["offsets"][-1] != tokens or (sizes <= 0).any():
        raise ValueError(f"{name}.offsets.npy does not ascend from 0 to {tokens}")
    if (arrays["prefix"] < 0).any() or (arrays["prefix"] > sizes).any():
        raise ValueError(f"{name}.prefix.npy is larger than its examples")
    return Examples(name, **arrays)
