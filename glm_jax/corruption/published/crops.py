"""Short texts cut at random out of a row, as the published loader does for some micro-batches."""

import random

import numpy as np

from glm_jax.corruption.published.text_rows import TextRow

# Shortest length that is drawn for crops.
SHORTEST = 32


def crop_rows(
    rows: list[TextRow],
    rng: random.Random,
    *,
    cls_id: int,
    sentence_ends: np.ndarray,
    length: int,
) -> list[list[TextRow]]:
    """Replaces each row by crops of about q tokens, q drawn once for all rows.

    There are floor((length - 1) / q) crops, drawn with replacement. Each begins with [CLS]. A crop
    begins and ends at sentence boundaries if that leaves half of it. A row of at most q tokens is
    repeated instead. With C = [CLS], E = eos, length 64, q = 28:

        C a b. c d ... y z. E  ->  C c d ... z.  and  C a b. c ... x.

    Args:
      rows: the texts of a micro-batch.
      rng: draws q, then the starts of the crops, row by row.
      cls_id: [CLS], which may begin a row.
      sentence_ends: [V] bool, true for tokens that end a sentence.
      length: most tokens of a row (L).

    Returns:
      The crops of each row.
    """
    size = rng.randrange(SHORTEST, length - 1)
    count = (length - 1) // size
    return [_crops(row, size, count, rng, cls_id, sentence_ends) for row in rows]


def _crops(
    row: TextRow,
    size: int,
    count: int,
    rng: random.Random,
    cls_id: int,
    sentence_ends: np.ndarray,
) -> list[TextRow]:
    head = int(len(row.tokens) > 0 and row.tokens[0] == cls_id)
    first, body = row.cut(0, head), row.cut(head, len(row.tokens))
    if len(body.tokens) <= size:
        return [row] * count
    closes = sentence_ends[body.tokens]
    crops = []
    for _ in range(count):
        start = rng.randrange(0, len(body.tokens) - size)
        while start > 0 and not closes[start - 1]:
            start -= 1
        end = start + size
        while end > start and not closes[end - 1]:
            end -= 1
        if end - start < size // 2:
            end = start + size
        crops.append(TextRow.join([first, body.cut(start, end)]))
    return crops
