"""Unigram and bigram baselines for filling blanks: a better model has learned from more context.

text      God said let | ____ | be light     counted: said let 3, let there 3, let us 1, there be 9
unigram   the most frequent word, whatever its neighbours
bigram    P(there | let) P(be | there) > P(us | let) P(be | us), so "there"

Both are given the number of words of the blank; a model is not.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

# A word or a punctuation mark. Both are neighbours in a bigram; only words fill a blank.
_PART = re.compile(r"[A-Za-z]+(?:[’-][A-Za-z]+)*|[^\w\s]")
_BIGRAM_WEIGHT = 0.9  # interpolation: 0.9 of the bigram's frequency and 0.1 of the unigram's
_FIRST_WORDS = 300  # candidates for the first of two words


class WordCounts:
    """Unigram and bigram counts of the words and punctuation marks in texts.

    Args:
      texts: what is counted; no bigram reaches over the end of a text.
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
        keys = np.array(sorted(pairs))
        self._left, self._right = keys[:, 0], keys[:, 1]
        self._pairs = np.array([pairs[pair] for pair in map(tuple, keys.tolist())], float)

    def unigram(self, words: int, count: int) -> list[str]:
        """The `count` most probable sequences of `words` words (1 or 2), by unigrams."""
        return self._best(np.log(self._share), words, count, lambda first: np.log(self._share))

    def bigram(self, before: str, after: str, words: int, count: int) -> list[str]:
        """The `count` most probable sequences of `words` words (1 or 2) between two texts.

        The probability is P(first word | what stands before it) .. P(what stands after | last
        word), by bigrams interpolated with unigrams, 0.9 to 0.1.
        """
        left = (_PART.findall(before) or [""])[-1]
        right = (_PART.findall(after) or [""])[0]
        back = np.log(self._before(right))
        front = np.log(self._behind(self._ids.get(left)))
        if words == 1:
            return self._best(front + back, 1, count, lambda first: front)
        return self._best(front, words, count, lambda first: np.log(self._behind(first)) + back)

    def _behind(self, left: int | None) -> np.ndarray:
        """[N], P(n | left) for all words and marks n."""
        found = (1 - _BIGRAM_WEIGHT) * self._share
        if left is None:
            return self._share
        low, high = np.searchsorted(self._left, [left, left + 1])
        found[self._right[low:high]] += _BIGRAM_WEIGHT * self._pairs[low:high] / self._counts[left]
        return found

    def _before(self, right: str) -> np.ndarray:
        """[N], P(right | n) for all words and marks n; 1 for a `right` that was never counted."""
        index = self._ids.get(right)
        if index is None:
            return np.ones(len(self._names))
        found = np.full(len(self._names), (1 - _BIGRAM_WEIGHT) * self._share[index])
        here = self._right == index
        of = self._left[here]
        found[of] += _BIGRAM_WEIGHT * self._pairs[here] / self._counts[of]
        return found

    def _best(
        self, first: np.ndarray, words: int, count: int, then: Callable[[int], np.ndarray]
    ) -> list[str]:
        """The best sequences of one or two words by the sum of their scores.

        Args:
          first: [N], scores of the first word.
          then: the scores [N] of the second word, given the first.
        """
        first = np.where(self._words, first, -np.inf)
        best = np.argsort(-first, kind="stable")[: np.isfinite(first).sum()].tolist()
        if words == 1:
            return [self._names[index] for index in best[:count]]
        if words != 2:
            raise ValueError(f"bigrams fill blanks of one or two words; got {words}")
        scored = []
        for one in best[:_FIRST_WORDS]:
            second = np.where(self._words, then(one), -np.inf)
            for two in np.argsort(-second, kind="stable")[:count].tolist():
                scored.append((-(first[one] + second[two]), one, two))
        return [f"{self._names[one]} {self._names[two]}" for _, one, two in sorted(scored)[:count]]
