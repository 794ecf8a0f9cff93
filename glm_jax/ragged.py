"""Arithmetic on groups of different sizes that are concatenated in a flat array."""

import numpy as np


def starts(sizes: np.ndarray) -> np.ndarray:
    """The index at which each group starts: [2, 0, 3] -> [0, 2, 2]."""
    return np.cumsum(sizes) - sizes


def within_groups(sizes: np.ndarray) -> np.ndarray:
    """The index of each element in its group: [2, 0, 3] -> [0, 1, 0, 1, 2]."""
    return np.arange(int(sizes.sum())) - np.repeat(starts(sizes), sizes)


def group_of(sizes: np.ndarray) -> np.ndarray:
    """The group of each element: [2, 0, 3] -> [0, 0, 2, 2, 2]."""
    return np.repeat(np.arange(len(sizes)), sizes)


def sums(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The sum of each group: [1, 2, 3, 4, 5] in [2, 0, 3] -> [3, 0, 12]."""
    total = np.concatenate([[0], np.cumsum(values)])
    first = starts(sizes)
    return total[first + sizes] - total[first]


def sums_before(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The sum of what precedes each element in its group: [1, 2, 3, 4, 5] -> [0, 1, 0, 3, 7]."""
    before = np.cumsum(values) - values
    # An empty group at the end would start behind the last element.
    first = np.minimum(starts(sizes), max(len(values) - 1, 0))
    return before - np.repeat(before[first], sizes) if len(values) else before
