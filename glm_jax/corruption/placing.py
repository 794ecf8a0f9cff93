"""Where spans go: lengths and draws in, half-open intervals out (the published rule)."""

from collections.abc import Sequence

from glm_jax.checks import whole_number, whole_numbers

Span = tuple[int, int]


def place_spans(lengths: Sequence[int], total: int, draws: Sequence[int]) -> list[Span]:
    """Places spans among `total` tokens with at least one uncovered token between neighbours.

    The sorted draws are the numbers of spare tokens left of each span. Spans of 3, 2 and 1 tokens
    among 20 allow draws of 0..12; the draws 5, 0, 12 give

        place_spans([3, 2, 1], 20, [5, 0, 12]) -> [(0, 3), (9, 11), (19, 20)]
        x x x . . . . . . x x . . . . . . . . x

    Args:
      lengths: length of each span, in text order, each at least 1.
      total: number of tokens.
      draws: one integer per span in 0..total - sum(lengths) - len(lengths) + 1, in any order.

    Returns:
      One (start, end) per length, half-open and ascending.

    Raises:
      ValueError: the spans do not fit, there is not one draw per span, or a draw is out of range.
    """
    lengths, draws = whole_numbers("lengths", lengths), whole_numbers("draws", draws)
    total = whole_number("total", total)
    if any(length < 1 for length in lengths):
        raise ValueError(f"lengths must be at least 1; got {lengths}")
    if len(draws) != len(lengths):
        raise ValueError(f"draws must be one per span, {len(lengths)}; got {len(draws)}")
    if not lengths:
        return []
    highest = total - sum(lengths) - len(lengths) + 1
    if highest < 0:
        raise ValueError(
            f"{len(lengths)} spans of {sum(lengths)} tokens with a free token between neighbours "
            f"need {sum(lengths) + len(lengths) - 1} tokens; total is {total}"
        )
    if min(draws) < 0 or max(draws) > highest:
        raise ValueError(f"draws must lie in 0..{highest}; got {draws}")
    spans, used = [], 0
    for length, draw in zip(lengths, sorted(draws), strict=True):
        start = draw + used
        spans.append((start, start + length))
        used += length + 1
    return spans


def place_in_documents(
    tokens: Sequence[int],
    lengths: Sequence[int],
    draws: Sequence[int],
    *,
    cls_id: int,
    eos_id: int,
    mask_ratio: float = 0.15,
) -> tuple[list[Span], bool]:
    """Places spans in the documents of one row exactly as the published code does.

    Each smaller document takes lengths from the front of the list while they cover at most
    `mask_ratio` of it; the largest document takes the rest. If they do not fit, the published code
    drops the row. This function exists for parity; `glm_jax.corruption.spans` never drops a row.

        tokens  C a b E C c d e f g h E     C = cls_id, E = eos_id
        areas     ^^^     ^^^^^^^^^^^       the first takes nothing: 0.15 * 2 tokens < 1
        place_in_documents(tokens, [1, 2], [0, 1], ...) -> ([(5, 6), (8, 10)], True)

    Args:
      tokens: the row, documents ending in `eos_id`, the last perhaps cut.
      lengths: span lengths in the order in which they are handed out.
      draws: for `place_spans`, document by document from the smallest on; further ones are unused.
      cls_id, eos_id: never covered by a span.
      mask_ratio: share of a smaller document that spans may cover.

    Returns:
      (spans, kept): spans document by document from the smallest on, and whether all of them fit
      (the published code drops the row otherwise).

    Raises:
      ValueError: too few draws, or one out of range.
    """
    draws = list(draws)
    areas, complete = hand_out(tokens, lengths, cls_id=cls_id, eos_id=eos_id, mask_ratio=mask_ratio)
    spans: list[Span] = []
    used = 0
    for offset, size, taken in areas:
        placed = place_spans(taken, size, draws[used : used + len(taken)])
        spans += [(offset + start, offset + end) for start, end in placed]
        used += len(taken)
    return spans, complete


def hand_out(
    tokens: Sequence[int],
    lengths: Sequence[int],
    *,
    cls_id: int,
    eos_id: int,
    mask_ratio: float = 0.15,
) -> tuple[list[tuple[int, int, list[int]]], bool]:
    """Shares span lengths out among the documents of a row; see `place_in_documents`.

    Returns:
      (areas, complete): per document, from the smallest on, the offset and size of the area that
      spans may cover and the lengths that it takes; and whether all lengths were taken.
    """
    lengths, handed = list(lengths), []
    areas = _areas(tokens, cls_id, eos_id)
    taken = 0
    for i, (offset, size) in enumerate(areas):
        largest = i == len(areas) - 1
        count, covered = 0, 0
        for length in lengths[taken:]:
            fits = (
                covered + count + length <= size
                if largest
                else covered + length <= int(mask_ratio * size)
            )
            if not fits:
                break
            count, covered = count + 1, covered + length
        handed.append((offset, size, lengths[taken : taken + count]))
        taken += count
    return handed, taken == len(lengths)


def _areas(tokens: Sequence[int], cls_id: int, eos_id: int) -> list[tuple[int, int]]:
    """(offset, size) of each document's area for spans, smallest first; of equals, last first."""
    areas, end = [], len(tokens)
    starts = [0, *(i + 1 for i, token in enumerate(tokens) if token == eos_id)]
    for start in reversed(starts):
        offset = start + (start < len(tokens) and tokens[start] == cls_id)
        # The published code spares the last token of a document that was cut.
        last = end - 1 if start == starts[-1] else end
        areas.append((offset, max(0, last - offset)))
        end = start - 1
    return sorted(areas, key=lambda area: area[1])
