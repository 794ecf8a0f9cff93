"""Orders of the spans in part B: all of them if they are few, else some that are drawn.

orders_of(3, 24, seed, text)   -> identity, reverse, and all 6 orders
orders_of(9, 24, seed, text)   -> identity, reverse, and 24 of the 362,880, drawn
"""

import dataclasses
import itertools
import math

import numpy as np

from glm_jax.draws import Draws, Purpose


@dataclasses.dataclass(frozen=True)
class Orders:
    """Orders of S spans, each once.

    Attributes:
      orders: [O, S] int64; orders[o, i] is the span that is placed i-th. The first is the identity,
        left to right; the reverse is the second, if S > 1.
      chosen: [O] bool, the sample over which means are taken: each order is equally likely in it.
      exact: the sample is all S! orders.
    """

    orders: np.ndarray
    chosen: np.ndarray
    exact: bool

    @property
    def ranks(self) -> np.ndarray:
        """[O, S] where each span comes in part B, from 0: the inverse of `orders`."""
        return np.argsort(self.orders, axis=1)

    @property
    def right_to_left(self) -> int:
        """Index of the reverse order."""
        return min(1, len(self.orders) - 1)


def orders_of(spans: int, most: int, seed: int, text: int) -> Orders:
    """All orders of `spans` spans if there are at most `most`, else `most` different ones.

    Args:
      spans: S, at least 1.
      most: at least 2.
      seed, text: of the draws. The k-th draw is the order that row `text` of epoch k would have.
    """
    exact = math.factorial(spans) <= most
    drawn = set() if exact else _drawn(spans, most, seed, text)
    sample = drawn or set(itertools.permutations(range(spans)))
    ends = [tuple(range(spans)), tuple(reversed(range(spans)))]
    orders = list(dict.fromkeys([*ends, *sorted(sample)]))
    return Orders(np.array(orders, np.int64), np.array([o in sample for o in orders]), exact)


def _drawn(spans: int, count: int, seed: int, text: int) -> set[tuple[int, ...]]:
    """`count` different orders; each subset of so many is equally likely."""
    found: set[tuple[int, ...]] = set()
    for first in itertools.count(0, count):
        epochs = np.arange(first, first + count)
        draws = Draws(seed, epochs, np.full(count, text))
        keys = draws.integers(Purpose.ORDER, np.full(count, spans)).reshape(count, spans)
        for order in np.argsort(keys, axis=1, kind="stable").tolist():
            found.add(tuple(order))
            if len(found) == count:
                return found
    raise AssertionError("unreachable")
