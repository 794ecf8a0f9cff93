"""What counts of words alone put into a blank: the measure of what a model reads out of context.

text      God said let | ____ | be light     counted: said let 3, let there 3, let us 1, there be 9
unigram   the word that is most frequent, whatever stands beside it
bigram    P(let there) P(there be) > P(let us) P(us be), so "there"

Both are told how many words the blank has, which a model is not.
"""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

# A sign is a neighbour like any word; only words fill a blank.
_PART = re.compile(r"[A-Za-z]+(?:[’-][A-Za-z]+)*|[^\w\s]")
_KNOWN = 0.9  # weight of a pair's own share; the rest is the word's share wherever it stands
_FIRST = 300  # first words of two that are looked at


class WordCounts:
    """Counts of words and of pairs of neighbours in texts.

    Args:
      texts: what is counted; a pair does not reach over the end of one.
    """

    def __init__(self, texts: Iterable[str]):
        parts = [["", *_PART.findall(text), ""] for text in texts]
        self._names = sorted({part for text in parts for part in text})
        self._ids = {name: index for index, name in enumerate(self._names)}
        self._words = np.array([name[:1].isalpha() for name in self._names])
        ids = [np.array([self._ids[part] for part in text]) for text in parts]
        self._counts = np.bincount(np.concatenate(ids), minlength=len(self._names)).astype(float)
        self._share = self._counts / self._counts.sum()
        pairs: Counter[tuple[int, int]] = Counter()
        for text in ids:
            pairs.update(zip(text[:-1].tolist(), text[1:].tolist(), strict=True))
        places = np.array(sorted(pairs))
        self._left, self._right = places[:, 0], places[:, 1]
        self._pairs = np.array([pairs[pair] for pair in map(tuple, places.tolist())], float)

    def unigram(self, words: int, count: int) -> list[str]:
        """The `count` most probable runs of so many words, by the words' frequencies alone."""
        return self._best(np.log(self._share), words, count, lambda first: np.log(self._share))

    def bigram(self, before: str, after: str, words: int, count: int) -> list[str]:
        """The `count` most probable runs of so many words between two texts.

        P(first | last part before) .. P(first part after | last), each 9/10 the share among the
        pairs and 1/10 that of the part wherever it stands.
        """
        left = (_PART.findall(before) or [""])[-1]
        right = (_PART.findall(after) or [""])[0]
        back = np.log(self._before(right))
        front = np.log(self._behind(self._ids.get(left)))
        if words == 1:
            return self._best(front + back, 1, count, lambda first: front)
        return self._best(front, words, count, lambda first: np.log(self._behind(first)) + back)

    def _behind(self, left: int | None) -> np.ndarray:
        """P(part | the part in front of it), for all parts."""
        found = (1 - _KNOWN) * self._share
        if left is None:
            return self._share
        low, high = np.searchsorted(self._left, [left, left + 1])
        found[self._right[low:high]] += _KNOWN * self._pairs[low:high] / self._counts[left]
        return found

    def _before(self, right: str) -> np.ndarray:
        """P(a part | the part in front of it), for all parts in front."""
        place = self._ids.get(right)
        if place is None:
            return np.ones(len(self._names))
        found = np.full(len(self._names), (1 - _KNOWN) * self._share[place])
        here = self._right == place
        of = self._left[here]
        found[of] += _KNOWN * self._pairs[here] / self._counts[of]
        return found

    def _best(self, first: np.ndarray, words: int, count: int, then) -> list[str]:
        """Runs of one or two words by the sum of their scores; `then` scores second words."""
        first = np.where(self._words, first, -np.inf)
        best = np.argsort(-first, kind="stable")[: np.isfinite(first).sum()].tolist()
        if words == 1:
            return [self._names[index] for index in best[:count]]
        if words != 2:
            raise ValueError(f"counts of pairs fill blanks of one or two words; got {words}")
        scored = []
        for one in best[:_FIRST]:
            second = np.where(self._words, then(one), -np.inf)
            for two in np.argsort(-second, kind="stable")[:count].tolist():
                scored.append((-(first[one] + second[two]), one, two))
        return [f"{self._names[one]} {self._names[two]}" for _, one, two in sorted(scored)[:count]]
