"""Breaks the code on purpose, one line at a time, and asks whether a test goes red.

    make mutate                                       all of tools/mutations.toml
    python tools/mutate.py --only models/layers.py    those whose file or name holds these words

For each entry of the table the old text becomes the new one in a copy of the tree, and the tests
that should notice are run: the file's mirror, unless the entry names others. A line a mutation:

    killed       3.1 s  corruption/hiding.py: the start token of a span is text
    SURVIVED     4.0 s  attention/dropout.py: strides may be even
    equivalent   2.2 s  data/documents.py: the line's end behind a text is kept

The checkout is never touched. Status 0: each was killed, or survived and is named equivalent; 1:
another survived, or one that is named equivalent was killed; 2: the table does not fit the tree, or
tests are red (or endless) for another reason than a mutation.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("mutations.toml")
PACKAGE = "glm_jax"
# What a copy does not need: history, environments, runs, caches.
LEFT_OUT = (".git", ".venv*", "runs", "__pycache__", ".*_cache", "*.egg-info", "build", "dist")
MARKERS = "not tensorflow and not nightly"
# Tests that start processes take long: they are left out of files that have others too, unless one
# is named (FILE::TEST).
OF_PROCESSES = "pytestmark = pytest.mark.processes"
# Seconds for the tests of one mutation. What has no end by then says nothing: the machine is busy.
LONGEST = 1200.0
MOST_WORKERS = 2

Result = TypeVar("Result")


class MisfitError(Exception):
    """The table and the tree do not fit; one sentence."""


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One entry of the table.

    Attributes:
      file: of the package, without its name: "models/layers.py".
      name: what is broken, in a few words.
      old, new: exact text, found once in the file, and what takes its place.
      tests: what should notice, as pytest takes it, below tests/: a file, or FILE::TEST where it
        takes long; none: the mirror.
      equivalent: why no test can notice; empty: one must.
    """

    file: str
    name: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""

    @property
    def source(self) -> Path:
        """Its file, below the root."""
        return Path(PACKAGE) / self.file

    @property
    def to_run(self) -> tuple[str, ...]:
        """What pytest is given, below the root."""
        path = Path(self.file)
        mirror = path.with_name(f"test_{path.name}").as_posix()
        return tuple(f"tests/{name}" for name in self.tests or (mirror,))

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


def read_table(path: Path = TABLE) -> list[Mutation]:
    """The entries of a table.

    Raises:
      MisfitError: an entry lacks a field or has one that is unknown.
    """
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]:
        try:
            found.append(Mutation(**{**entry, "tests": tuple(entry.get("tests", ()))}))
        except TypeError as error:
            raise MisfitError(f"{path.name}: {error} in {entry}") from None
    return found


def misfit(mutation: Mutation, root: Path = ROOT) -> str | None:
    """Why an entry does not fit the tree, in one sentence; None: it fits."""
    if not (root / mutation.source).is_file():
        return f"{mutation} is about a file that is not there."
    for name in mutation.to_run:
        if not (root / name.partition("::")[0]).is_file():
            return f"{mutation} names {name}, which is not there."
    count = (root / mutation.source).read_text(encoding="utf-8").count(mutation.old)
    if count != 1 or mutation.old == mutation.new:
        return (
            f"{mutation}: the old text must stand in the file once and differ from the new one; "
            f"it stands there {count} times: {mutation.old!r}"
        )
    return None


class Copies:
    """Copies of a tree, one a worker, in which tests run.

    Attributes:
      pool: runs as many of the methods below at a time as there are copies.
    """

    def __init__(self, root: Path, folder: Path, workers: int):
        """Copies `root` into `folder`, `workers` times."""
        self._compiled = folder / "compiled"
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(workers):
            ignored = shutil.ignore_patterns(*LEFT_OUT)
            self._free.put(Path(shutil.copytree(root, folder / str(number), ignore=ignored)))
        self.pool = concurrent.futures.ThreadPoolExecutor(workers)

    def timed(
        self, work: Callable[..., Result], items: Sequence[object]
    ) -> Iterator[tuple[Result, float]]:
        """work(item, copy) and its seconds for each item, in order, several at a time."""

        def one(item: object) -> tuple[Result, float]:
            tree, begin = self._free.get(), time.monotonic()
            try:
                return work(item, tree), time.monotonic() - begin
            finally:
                self._free.put(tree)

        return self.pool.map(one, items)

    def survives(self, mutation: Mutation, tree: Path) -> bool:
        """Breaks a copy, runs the tests, mends it; whether they all passed."""
        path = tree / mutation.source
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
        try:
            return self.passes(mutation.to_run, tree)
        finally:
            path.write_text(whole, encoding="utf-8")

    def passes(self, tests: Sequence[str], tree: Path) -> bool:
        """Whether tests of a copy pass.

        Raises:
          MisfitError: none ran, pytest itself failed, or they did not end.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree),
            # Bytecode is told apart by time and size, which a mutation may share with the whole.
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self._compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        files = [(tree / name.partition("::")[0]).read_text(encoding="utf-8") for name in tests]
        alone = any(
            "::" in name or OF_PROCESSES in text for name, text in zip(tests, files, strict=True)
        )
        try:
            done = subprocess.run(
                [*command, "-m", MARKERS if alone else f"{MARKERS} and not processes", *tests],
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            raise MisfitError(f"{' '.join(tests)} did not end in {LONGEST:g} s.") from None
        if done.returncode in (3, 4, 5):  # internal error, wrong usage, no test
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise MisfitError(f"pytest could not run {' '.join(tests)}: {' '.join(last)}")
        return done.returncode == 0


def run(mutations: Sequence[Mutation], root: Path = ROOT, workers: int = MOST_WORKERS) -> int:
    """Tries them all and prints a line for each; the status of the command.

    Raises:
      MisfitError: as `misfit` and `Copies.passes` say, or tests are red without a mutation.
    """
    for sentence in filter(None, (misfit(mutation, root) for mutation in mutations)):
        raise MisfitError(sentence)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="glm_jax-mutate-") as folder:
        copies = Copies(root, Path(folder), workers)
        with copies.pool:
            tests = sorted({name for mutation in mutations for name in mutation.to_run})
            found = copies.timed(lambda name, tree: copies.passes([name], tree), tests)
            for name, (green, _) in zip(tests, found, strict=True):
                if not green:
                    raise MisfitError(f"{name} is red without a mutation.")
            print(f"all green without a mutation, {time.monotonic() - begin:.0f} s", flush=True)
            wrong = []
            for mutation, (alive, seconds) in zip(
                mutations, copies.timed(copies.survives, mutations), strict=True
            ):
                expected = alive == bool(mutation.equivalent)
                word = "survived" if alive else "killed"
                word = ("equivalent" if alive else word) if expected else word.upper()
                print(f"{word:10} {seconds:5.1f} s  {mutation}", flush=True)
                if not expected:
                    wrong.append(f"{word} {mutation}")
    seconds = time.monotonic() - begin
    print(f"{len(mutations)} mutations in {seconds:.0f} s, {len(wrong)} not as they should be")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="words in the file or name of a mutation")
    parser.add_argument("--workers", type=int, choices=range(1, MOST_WORKERS + 1), default=2)
    options = parser.parse_args(arguments)
    try:
        chosen = [mutation for mutation in read_table() if options.only in str(mutation)]
        if not chosen:
            raise MisfitError(f"no mutation's file or name holds {options.only!r}.")
        return run(chosen, workers=options.workers)
    except MisfitError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
