"""Overlapping windows that score a long text: every id but the first is scored exactly once.

    ids 0 1 2 3 4 5 6 7 8 9, window 6, stride 2

    0 | 1 2 3 4 5             the first window scores all ids but its first
        2 3 4 5 | 6 7         each later window scores its new ids, given its other ids
            4 5 6 7 | 8 9

With a bidirectional context, the ids left of the bar are part A. Otherwise part A holds the first
id of the window, and the other ids left of the bar begin part B (the published evaluation of
language models).
"""

import dataclasses
from collections.abc import Sequence

from glm_jax.checks import whole_number
from glm_jax.errors import UserError
from glm_jax.generation.scoring import ScoredRow, blank_row, causal_row


@dataclasses.dataclass(frozen=True)
class Window:
    """The ids [start, end) of a text, of which [new, end) are scored."""

    start: int
    new: int
    end: int


def windows(length: int, window: int, stride: int) -> list[Window]:
    """The windows of a text.

        windows(10, 6, 2) -> (0, 1, 6), (2, 6, 8), (4, 8, 10)

    Args:
      length: number of ids of the text, 2 at least.
      window: number of ids of the longest window.
      stride: number of new ids of every window but the first.

    Raises:
      UserError: a text of fewer than 2 ids, a window below 2, or a stride outside 1..window - 1.
    """
    if length < 2:
        raise UserError(f"a text must hold 2 ids at least, to score the second; got {length}")
    window = whole_number("window", window, least=2)
    stride = whole_number("stride", stride)
    if not 1 <= stride < window:
        raise UserError(f"stride must lie in 1..{window - 1}, below window; got {stride}")
    found = [Window(0, 1, min(window, length))]
    while found[-1].end < length:
        start = found[-1].start + stride
        found.append(Window(start, found[-1].end, min(start + window, length)))
    return found


def blank_window(
    ids: Sequence[int],
    window: Window,
    *,
    prefix_ids: Sequence[int],
    mask_id: int,
    start_id: int,
    bidirectional: bool,
) -> ScoredRow:
    """A window as a row of a model that fills blanks; part A begins with prefix_ids."""
    cut = window.new if bidirectional else window.start + 1
    part_a = [*prefix_ids, *ids[window.start : cut], mask_id]
    given, answer = ids[cut : window.new], ids[window.new : window.end]
    return blank_row(part_a, len(part_a) - 1, start_id, given, answer)


def causal_window(ids: Sequence[int], window: Window, prefix_ids: Sequence[int]) -> ScoredRow:
    """A window as a row of a causal model; the row begins with prefix_ids."""
    text = [*prefix_ids, *ids[window.start : window.new]]
    return causal_row(text, ids[window.new : window.end])
