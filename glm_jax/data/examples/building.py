"""Builds the store of a config's examples: threads read and tokenise.

    my/*.jsonl  ->  objects, split by the hash of what they say  ->  threads: examples  ->  store

Nothing is written before each object of the files has been checked.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from glm_jax.config import Config
from glm_jax.config.examples import OF_FILES
from glm_jax.data.building import bar, in_threads
from glm_jax.data.documents import SPLITS, Skipped, content_hash, held_out
from glm_jax.data.examples.example import Example
from glm_jax.data.examples.files import Record, example_files, records, with_targets
from glm_jax.data.examples.makers import Maker, maker_of, may_have_part_a
from glm_jax.data.examples.store import FORMAT, ExampleWriter, place
from glm_jax.data.file_hashes import file_hashes
from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject
from glm_jax.paths import cache_directory
from glm_jax.tokenizers.tokenizer import load_tokenizer

Out = TypeVar("Out")

# Objects that a thread makes examples of at once.
_BATCH = 64


def build_store(config: Config, directory: Path, progress: bool | None = None) -> None:
    """Makes the store of `data.source` by the section `examples`.

    Prints on standard error how many examples there are, which lines were left out, and which
    examples have nothing to learn after the cut.

    Args:
      config: `data`, `examples` and what kind of model `model` is.
      directory: where the store will be; must not exist, or be empty.
      progress: show a bar on standard error; None: only if that is a terminal.

    Raises:
      UserError: no files, an object that is not of the format (names file and line), nothing to
        learn, or a directory that cannot be written.
    """
    tokenizer = load_tokenizer(config.data.tokenizer)
    maker = maker_of(config.examples, tokenizer, config.model.fills_blanks)
    files, skipped = example_files(config.data.source), Skipped()
    is_eval = _held_out(files, maker, skipped, config)
    made = _Made(files)
    try:
        with (
            ExampleWriter(
                directory,
                vocab_size=tokenizer.vocab_size,
                special=tokenizer.special,
                description=description(config),
            ) as writer,
            bar(len(is_eval), progress) as shown,
        ):
            for split in SPLITS:
                writer.add(split, [], [])
            numbered = zip(records(files, Skipped()), is_eval, strict=True)
            for chunk in in_threads(lambda part: _examples(files, maker, part), _chunks(numbered)):
                shown.update(len(chunk))
                for record, held, examples in chunk:
                    made.add(writer, record, held, examples)
            made.check()
    except OSError as error:
        raise UserError(
            f"cannot write the store of examples {str(directory)!r} ({error.strerror}); data.store "
            "or the environment variable GLM_JAX_CACHE puts it elsewhere"
        ) from error
    if skipped.counts:
        print(f"warning: {skipped.summary()}", file=sys.stderr)
    print(made.summary(), file=sys.stderr)


def description(config: Config) -> JsonObject:
    """What a store is made from: files, settings and tokenizer."""
    tokenizer = load_tokenizer(config.data.tokenizer)
    return {
        "source": config.data.source,
        "files": described_files(config),
        "eval_fraction": config.data.eval_fraction,
        "settings": settings(config),
        "tokenizer": config.data.tokenizer,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "chat_fingerprint": tokenizer.chat_fingerprint,
    }


def settings(config: Config) -> JsonObject:
    """The options that decide what examples are made of files, by name."""
    found = {f"examples.{name}": getattr(config.examples, name) for name in OF_FILES}
    tokenizer = load_tokenizer(config.data.tokenizer)
    has_part_a = config.model.fills_blanks and may_have_part_a(tokenizer)
    return {**found, "a part A that all tokens see": has_part_a}


def described_files(config: Config) -> list[JsonObject]:
    """Name, size and SHA-256 of each file of examples.

    Raises:
      UserError: as `example_files`, or a file cannot be read.
    """
    files = with_targets(example_files(config.data.source))
    hashes = file_hashes(files, cache_directory() / "hashes")
    return [
        {"name": str(file), "bytes": file.stat().st_size, "sha256": digest}
        for file, digest in zip(files, hashes, strict=True)
    ]


def store_key(config: Config) -> str:
    """16 hexadecimal digits that change with everything that decides a store's content."""
    made_from = description(config)
    files = [[Path(one["name"]).suffix, one["sha256"]] for one in made_from["files"]]
    parts = {**made_from, "files": files, "format": FORMAT, "source": "", "tokenizer": ""}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def objects_of(config: Config, maker: Maker, split: str) -> list[tuple[str, JsonObject]]:
    """The objects of a split as they stand in the files, each with where that is.

    Raises:
      UserError: as `build_store`.
    """
    return objects_by_split(config, maker)[split]


def objects_by_split(config: Config, maker: Maker) -> dict[str, list[tuple[str, JsonObject]]]:
    """`objects_of` each split, of one reading of the files."""
    files, skipped = example_files(config.data.source), Skipped()
    is_eval = _held_out(files, maker, skipped, config)
    found: dict[str, list[tuple[str, JsonObject]]] = {split: [] for split in SPLITS}
    for record, held in zip(records(files, Skipped()), is_eval, strict=True):
        if isinstance(record.values, dict):
            for split in SPLITS:
                if held in (None, split == "eval"):
                    found[split].append((_name(files, record), record.values))
    return found


class _Made:
    """What has been made so far."""

    def __init__(self, files: list[Path]):
        self._files = files
        self._examples = 0
        self._empty = 0
        self._first = ""

    def add(
        self, writer: ExampleWriter, record: Record, held: bool | None, examples: list[Example]
    ) -> None:
        """Writes the examples that have something to learn; `held` None: into both splits."""
        kept = [example for example in examples if example.learnt.any()]
        self._examples += len(examples)
        self._empty += len(examples) - len(kept)
        if len(kept) < len(examples) and not self._first:
            self._first = _name(self._files, record)
        places = [(record.file, record.line)] * len(kept)
        for split in SPLITS:
            if held is None or held == (split == "eval"):
                writer.add(split, kept, places)

    def check(self) -> None:
        """Raises UserError if there is nothing to learn in any example."""
        if self._examples == self._empty:
            raise UserError(f"nothing would be learnt: {self.summary()}")

    def summary(self) -> str:
        """ "12,034 examples, 11 without an answer after the cut: first my/a.jsonl line 7"."""
        said = f"{self._examples:,} examples"
        if self._empty:
            said += f", {self._empty:,} without an answer after the cut: first {self._first}"
        return said


def _held_out(
    files: list[Path], maker: Maker, skipped: Skipped, config: Config
) -> list[bool | None]:
    """Whether each object is held out; None of a single one, which is in both splits."""
    hashes = [
        content_hash(_named(files, record, maker.content)) for record in records(files, skipped)
    ]
    if not hashes:
        why = skipped.summary()
        raise UserError(
            f"no examples in the {len(files)} file(s) of data.source={config.data.source!r}"
            + (f"; {why}" if why else "")
        )
    if len(hashes) == 1:
        print(
            "warning: there is one example, which is used for training and for evaluation",
            file=sys.stderr,
        )
        return [None]
    return held_out(np.array(hashes, np.uint64), config.data.eval_fraction).tolist()


Numbered = tuple[Record, bool | None]


def _chunks(numbered: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    while chunk := list(itertools.islice(numbered, _BATCH)):
        yield chunk


def _examples(
    files: list[Path], maker: Maker, chunk: list[Numbered]
) -> list[tuple[Record, bool | None, list[Example]]]:
    return [(record, held, _named(files, record, maker.examples)) for record, held in chunk]


def _named(files: list[Path], record: Record, function: Callable[[JsonObject], Out]) -> Out:
    """What a function makes of an object; its errors begin with where the object stands."""
    try:
        if not isinstance(record.values, dict):
            raise UserError(f"must be a JSON object; got {short(record.values)}")
        return function(record.values)
    except UserError as error:
        raise UserError(f"{_name(files, record)}: {error}") from error


def _name(files: list[Path], record: Record) -> str:
    return place(str(files[record.file]), record.line)
