"""Small evaluation sets, made from the held-out documents of the bundled corpus.

They are the same on every machine, hold no text that a run on the bundled corpus was trained on,
and are made in a second. They compare models trained on this corpus; they are no public benchmark.
"""

import dataclasses
import functools
import importlib.resources
import json
import re
from collections.abc import Iterator

import numpy as np

from glm_jax.config.data import DataConfig
from glm_jax.data.documents import scan

_SENTENCE = re.compile(r"[^.?!]+[.?!]+")
_WORD = re.compile(r"[A-Za-z]{4,}")
_INNER = re.compile(r"(?<= )[A-Za-z]{4,}")  # a word with a space in front
_LEAST_CONTEXT = 30  # words in front of a last word
_CHOICES = 4
_SEED = 20220322


@dataclasses.dataclass(frozen=True)
class LastWord:
    """A passage without its last word.

    Attributes:
      context: the text before the word, without the space at its end.
      word: the last word.
    """

    context: str
    word: str


@dataclasses.dataclass(frozen=True)
class Cloze:
    """A sentence with a word cut out.

    Attributes:
      before, after: the sentence around the word; `before` ends without a space.
      choices: the word and three others of the same document, in alphabetical order.
      answer: index of the word in `choices`.
    """

    before: str
    after: str
    choices: list[str]
    answer: int


@dataclasses.dataclass(frozen=True)
class Blank:
    """A sentence with one or two words cut out, and the text before it in its paragraph.

    Attributes:
      before: the text before the words, without the space at its end.
      answer: the words.
      after: the rest of the sentence; begins with a space or a punctuation mark.
    """

    before: str
    answer: str
    after: str


def blanks() -> list[Blank]:
    """The fifty bundled blanks (`tools/choose_blanks.py`), in the order of the corpus."""
    file = importlib.resources.files("glm_jax.bundled") / "blanks.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")
    return [Blank(**json.loads(line)) for line in lines if line]


def training_chapters() -> list[str]:
    """The English documents of the training split of the bundled corpus."""
    corpus = scan(DataConfig(source="bundled:en"))
    return [corpus.read(index) for index in corpus.indices("train").tolist()]


def held_out(language: str | None = None) -> list[str]:
    """The held-out documents in "en" or "zh"; None: alternating, until one language has no more."""
    found = _documents()
    if language is not None:
        return found[language]
    return [text for pair in zip(found["en"], found["zh"], strict=False) for text in pair]


@functools.lru_cache(maxsize=1)
def _documents() -> dict[str, list[str]]:
    corpus = scan(DataConfig(source="bundled"))
    found: dict[str, list[str]] = {"en": [], "zh": []}
    for index in corpus.indices("eval").tolist():
        file = corpus.files[int(corpus.locations[index, 0])]
        found[file.name.split(".")[1]].append(corpus.read(index))
    return found


def last_words() -> Iterator[LastWord]:
    """Passages of whole sentences, each with at least 30 words before its last word."""
    for document in held_out("en"):
        passage = ""
        for sentence in _SENTENCE.findall(document.replace("\n", " ")):
            passage += sentence
            words = passage.split()
            match = _WORD.fullmatch(words[-1].rstrip(".?!"))
            if len(words) <= _LEAST_CONTEXT:
                continue
            if match:
                yield LastWord(" ".join(words[:-1]), match.group())
            passage = ""


def clozes() -> Iterator[Cloze]:
    """Every third sentence, if it has 8 to 30 words, with one of its inner words cut out."""
    random = np.random.default_rng(_SEED)
    for document in held_out("en"):
        everywhere = sorted({word for word in _WORD.findall(document) if word.islower()})
        for sentence in _SENTENCE.findall(document.replace("\n", " "))[::3]:
            inside = [m for m in _INNER.finditer(sentence) if m.group().islower()][1:-1]
            if not 8 <= len(sentence.split()) <= 30 or not inside:
                continue
            word = inside[random.integers(len(inside))]
            others = [other for other in everywhere if other != word.group()]
            if len(others) < _CHOICES - 1:
                continue
            drawn = random.choice(len(others), _CHOICES - 1, replace=False)
            choices = sorted([word.group(), *(others[i] for i in drawn)])
            before, after = sentence[: word.start()].strip(), sentence[word.end() :]
            yield Cloze(before, after, choices, choices.index(word.group()))
