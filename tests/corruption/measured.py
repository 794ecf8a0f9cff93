"""What tests of several objectives measure: span lengths and masked shares by index in the text."""

import numpy as np

from glm_jax.corruption.plan import Plan
from glm_jax.ragged import group_of, starts, sums, within_groups

# Standard errors that a measured mean may lie off. A test looks at some 50 means; one of them lies
# further off with a chance of 3 in 1000, and draws are the same in every run.
ERRORS = 4.5


def assert_lengths_alike(counts: np.ndarray, length: np.ndarray, least: int = 200) -> None:
    """First, second, ..., last, last but one, ...: no span is longer than its text's others.

    Compared within each text, since texts with many spans have shorter ones.

    Args:
      counts: [P] spans of each text.
      length: [S] of each span, in the order of the text.
      least: texts that must have a span of that number for it to be looked at.
    """
    segment = group_of(counts)
    off = length - (sums(length, counts) / np.maximum(counts, 1))[segment]
    from_start = within_groups(counts)
    from_end = counts[segment] - 1 - from_start
    several = counts[segment] > 1
    checked = 0
    for side in (from_start, from_end):
        for number in range(int(counts.max())):
            chosen = off[several & (side == number)]
            if len(chosen) < least:
                break
            error = chosen.std() / np.sqrt(len(chosen))
            assert abs(chosen.mean()) < ERRORS * error, (number, chosen.mean(), error)
            checked += 1
    assert checked >= 4


def masked_slots(plan: Plan) -> np.ndarray:
    """[P, n] bool: the masked tokens of texts of n tokens each, eos left out."""
    size = int(plan.size[0])
    assert (plan.size == size).all()
    masked = np.zeros((len(plan.size), size + 1), bool)
    segment = np.repeat(group_of(plan.num_spans), plan.length)
    masked[segment, np.repeat(plan.start, plan.length) + within_groups(plan.length)] = True
    return masked[:, :size]


def assert_shares_alike(masked: np.ndarray, stretches: list[slice]) -> None:
    """Equal shares of masked tokens in stretches of the texts of `masked` [P, n].

    Compared within each text, since what lies in one stretch lacks in another.
    """
    shares = np.stack([masked[:, stretch].mean(axis=1) for stretch in stretches], axis=1)
    off = shares - shares.mean(axis=1, keepdims=True)
    error = off.std(axis=0) / np.sqrt(len(masked))
    assert (abs(off.mean(axis=0)) < ERRORS * error).all(), (shares.mean(axis=0), error)


def assert_both_ends_alike(masked: np.ndarray) -> None:
    """Slot t and slot n - 1 - t, for the first ten and for the two halves."""
    size = masked.shape[1]
    for slot in range(10):
        at_end = size - 1 - slot
        assert_shares_alike(masked, [slice(slot, slot + 1), slice(at_end, at_end + 1)])
    assert_shares_alike(masked, [slice(0, size // 2), slice(size - size // 2, size)])


def first_of(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[P] the value of each text's first span."""
    return values[starts(counts)]
