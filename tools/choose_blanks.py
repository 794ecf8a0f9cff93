"""Chooses the fifty blanks by which models of the bundled corpus are compared, once for all.

    python tools/choose_blanks.py

writes glm_jax/bundled/blanks.jsonl: sentences of 8 to 30 words that stand outside of speech, in
chapters that are held out, each with one or two of its inner words cut out, drawn alike over all
words. In front stands what the paragraph says before, 40 words at most. No eight words in a row
with the blank among them occur in the chapters that are trained on: Kings and Chronicles, or two
gospels, tell some things in the same words.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from glm_jax.evaluation.data import held_out, training_chapters

OUT = Path(__file__).resolve().parent.parent / "glm_jax" / "bundled" / "blanks.jsonl"

COUNT, PAIRS = 50, 16  # blanks, and how many of them are two words
RUN = 8
CONTEXT = 40
SEED = 20210318

_SENTENCE = re.compile(r"(?:(?<=^)|(?<=[.?!] ))[A-Z][^.?!“”]*[.?!](?= |$)")
_WORD = re.compile(r"[A-Za-z]+(?:[’-][A-Za-z]+)*")


def sentences(document: str) -> Iterator[tuple[str, str]]:
    """Each sentence outside of speech, behind what its paragraph says before it."""
    for line in document.split("\n"):
        for match in _SENTENCE.finditer(line):
            before = line[: match.start()]
            if before.count("“") == before.count("”"):
                yield before, match.group()


def sentences_of(chapters: Iterable[str]) -> list[tuple[str, str]]:
    """`sentences` of all chapters."""
    return [pair for chapter in chapters for pair in sentences(chapter)]


def draw(before: str, sentence: str, words: int, draws: np.random.Generator) -> dict | None:
    """A blank of so many words in a sentence, not its first nor its last; None if there is none."""
    found = list(_WORD.finditer(sentence))
    if not 8 <= len(found) <= 30:
        return None
    starts = [
        first
        for first in range(1, len(found) - words)
        # Nothing but a space stands between two words.
        if words == 1 or sentence[found[first].end() : found[first + 1].start()] == " "
    ]
    if not starts:
        return None
    first = starts[draws.integers(len(starts))]
    start, end = found[first].start(), found[first + words - 1].end()
    context = " ".join(before.split()[-CONTEXT:])
    return {
        "before": f"{context} {sentence[:start]}".strip(),
        "answer": sentence[start:end],
        "after": sentence[end:],
    }


def occurs(blank: dict, known: set[tuple[str, ...]]) -> bool:
    """Whether `RUN` words in a row, one of the blank's among them, are known."""
    left, middle, right = (
        _WORD.findall(blank[name].lower()) for name in ("before", "answer", "after")
    )
    words = [*left, *middle, *right]
    first = max(0, len(left) - RUN + 1)
    last = min(len(left) + len(middle), len(words) - RUN + 1)
    return any(tuple(words[i : i + RUN]) in known for i in range(first, last))


def word_runs(chapters: Iterable[str]) -> set[tuple[str, ...]]:
    """All `RUN` words in a row of chapters."""
    known: set[tuple[str, ...]] = set()
    for chapter in chapters:
        words = _WORD.findall(chapter.lower())
        known.update(zip(*(words[i:] for i in range(RUN)), strict=False))
    return known


def choose() -> list[dict]:
    """The fifty, in the order of the corpus."""
    known = word_runs(training_chapters())
    all_sentences = sentences_of(held_out("en"))
    draws = np.random.default_rng(SEED)
    wanted = [1 if place >= PAIRS else 2 for place in range(COUNT)]
    chosen: list[tuple[int, dict]] = []
    for place in draws.permutation(len(all_sentences)).tolist():
        if not wanted:
            break
        blank = draw(*all_sentences[place], wanted[-1], draws)
        if blank is not None and not occurs(blank, known):
            chosen.append((place, blank))
            wanted.pop()
    if wanted:
        raise ValueError(f"{len(wanted)} blanks too few in the held-out chapters")
    return [blank for _, blank in sorted(chosen, key=lambda pair: pair[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    args = parser.parse_args()
    lines = [json.dumps(blank, ensure_ascii=False) + "\n" for blank in choose()]
    args.out.write_text("".join(lines), encoding="utf-8")
    print(f"{args.out}: {len(lines)} blanks")


if __name__ == "__main__":
    main()
