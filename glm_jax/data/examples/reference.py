"""The log-probabilities that a reference model gives the targets of a store of examples.

    reference.json     format, what it is of (model, examples, length of rows, dtype), checksums,
                       fingerprint
    SPLIT.log_probs    float32, one per token of the split's examples; 0 where nothing is learnt

It is immutable, as the store of examples is. It is made in parts, a file each, in a directory
beside it, so that what is done when a process is killed need not be done again.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.batch import Batch, ScoredBatch
from glm_jax.data.examples.rows import ExampleRowBuilder
from glm_jax.data.examples.store import ExampleStore
from glm_jax.data.opening import opened_store
from glm_jax.data.reading import content_checksum
from glm_jax.errors import UserError
from glm_jax.files import new_directory, write_whole, written
from glm_jax.json_files import JsonObject

FORMAT = 1
INDEX = "reference.json"
_KIND = "store of a reference's log-probabilities"


@dataclasses.dataclass(frozen=True)
class MadeOf:
    """What log-probabilities are of; two that are equal are of the same numbers, but for rounding.

    Attributes:
      model: fingerprint of the reference's parameters, shortened.
      examples: fingerprint of the store.
      sequence_length: `data.sequence_length`, which decides what pairs there are.
      dtype: in which it was computed.
    """

    model: str
    examples: str
    sequence_length: int
    dtype: str

    @property
    def fingerprint(self) -> str:
        """In hexadecimal."""
        text = json.dumps([FORMAT, dataclasses.astuple(self)])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class ReferenceStore:
    """An opened store.

    Attributes:
      directory: where it is.
      made_of: what it is of.
      log_probs: [N] float32 by split, N the tokens of its examples.
    """

    directory: Path
    made_of: MadeOf
    log_probs: dict[str, np.ndarray]

    @classmethod
    def open(cls, directory: str | Path) -> "ReferenceStore":
        """Maps a store into memory and verifies its checksums.

        Raises:
          UserError: there is none, or a file of it is missing or damaged.
        """
        return opened_store(Path(directory), _KIND, INDEX, FORMAT, _fingerprint, _opened)

    def check(self, wanted: MadeOf) -> None:
        """Refuses a store of something else.

        Raises:
          UserError: names what differs, with both values.
        """
        had, now = dataclasses.asdict(self.made_of), dataclasses.asdict(wanted)
        differing = [
            f"{name} {had[name]}, not {now[name]}" for name in now if had[name] != now[name]
        ]
        if differing:
            raise UserError(
                f"the {_KIND} {str(self.directory)!r} is of other things than this run: "
                f"{'; '.join(differing)}; leave preferences.reference out, or name another "
                "directory"
            )


def is_there(directory: Path) -> bool:
    """Whether there is a whole store."""
    return (directory / INDEX).is_file()


class ReferenceWriter:
    """Writes a store part by part; one process writes."""

    def __init__(self, directory: Path, made_of: MadeOf):
        """Finds what was done before.

        Args:
          directory: where the store will be.
          made_of: what it is of; parts of something else are not gone on with.

        Raises:
          OSError: the disk cannot be written.
        """
        self._directory, self._made_of = directory, made_of
        name = f".{directory.name}.{made_of.fingerprint[:16]}.parts"
        self._parts = directory.with_name(name)
        self._parts.mkdir(parents=True, exist_ok=True)

    def rows_done(self, split: str) -> int:
        """The number of rows of a split, from its first, that are done."""
        done = 0
        while (found := next(self._parts.glob(f"{split}-{done:012d}-*.npz"), None)) is not None:
            done = int(found.stem.rsplit("-", 1)[1])
        return done

    def add(self, split: str, first: int, end: int, index: np.ndarray, values: np.ndarray) -> None:
        """Writes the rows `first` to `end - 1` of a split.

        Args:
          split: its name.
          first, end: numbers of rows; `first` is `rows_done`.
          index: [n] int64, tokens of the split's examples.
          values: [n] float32, their log-probabilities.
        """
        with written(self._parts / f"{split}-{first:012d}-{end:012d}.npz") as temporary:
            np.savez(temporary, index=index, values=values)

    def close(self, sizes: Mapping[str, int]) -> None:
        """Puts the parts together, and removes them.

        Args:
          sizes: number of tokens of each split's examples.
        """
        checksums = {}
        with new_directory(self._directory, is_there) as fresh:
            for split, size in sizes.items():
                whole = np.zeros(size, np.float32)
                for path in sorted(self._parts.glob(f"{split}-*.npz")):
                    with np.load(path) as part:
                        whole[part["index"]] = part["values"]
                whole.tofile(fresh / f"{split}.log_probs")
                checksums[split] = content_checksum(whole)
            index = {
                "format": FORMAT,
                "made_of": dataclasses.asdict(self._made_of),
                "sizes": dict(sizes),
                "checksums": checksums,
            }
            index["fingerprint"] = _fingerprint(index)
            write_whole(fresh / INDEX, json.dumps(index, indent=2) + "\n")
        shutil.rmtree(self._parts, ignore_errors=True)


class ScoredExamples:
    """Examples together with a reference's log-probabilities, as the identity of a run's data."""

    def __init__(self, examples: ExampleStore, reference: ReferenceStore):
        both = f"{examples.fingerprint} {reference.made_of.fingerprint}"
        self.fingerprint = hashlib.sha256(both.encode()).hexdigest()
        made_of = dataclasses.asdict(reference.made_of)
        self.description: JsonObject = {**examples.description, "reference": made_of}
        self.check = examples.check


class ScoredRowBuilder:
    """The rows of pairs as `ScoredBatch`es.

    Attributes:
      num_rows, seed, store: as of `ExampleRowBuilder`.
    """

    def __init__(self, rows: ExampleRowBuilder, split: str, reference: ReferenceStore | None):
        """Joins rows, their margins, and log-probabilities.

        Args:
          rows: of pairs.
          split: its name.
          reference: None: the loss compares with none.

        Raises:
          UserError: rows and reference are of other examples, or of another length of rows.
        """
        self._rows, self._log_probs = rows, None
        self.num_rows, self.seed = rows.num_rows, rows.seed
        self.store: ExampleStore | ScoredExamples = rows.store
        if reference is None:
            return
        self._log_probs = reference.log_probs[split]
        found = reference.made_of
        here = dataclasses.replace(
            found, examples=rows.store.fingerprint, sequence_length=rows.length
        )
        reference.check(here)
        self.store = ScoredExamples(rows.store, reference)

    def build(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[Batch, dict[str, int]]:
        """As `ExampleRowBuilder.build`."""
        batch, counted = self._rows.build(epochs, rows)
        found = margins = None
        if self._log_probs is not None:
            token = self._rows.tokens_of(rows)
            found = np.where(token < 0, np.float32(0), self._log_probs[np.maximum(token, 0)])
        if self._rows.has_margins:
            margins = self._rows.margins_of(rows)
        return ScoredBatch(**batch.to_dict(), reference=found, margins=margins), counted


def _fingerprint(index: JsonObject) -> str:
    parts = [index["made_of"], index["sizes"], index["checksums"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _opened(directory: Path, index: JsonObject) -> ReferenceStore:
    log_probs: dict[str, np.ndarray] = {}
    for split, size in index["sizes"].items():
        values = np.memmap(directory / f"{split}.log_probs", np.float32, mode="r")
        if len(values) != size or content_checksum(values) != index["checksums"][split]:
            raise ValueError(f"{split}.log_probs is not what was written")
        log_probs[split] = values
    return ReferenceStore(directory, MadeOf(**index["made_of"]), log_probs)
