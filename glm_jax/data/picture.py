"""Rows as text, to see what a model sees: a table of the slots, and the attention mask.

token      target       pos block
[CLS]      ·              0     0   x x x x . . .
the        ·              1     0   x x x x . . .
[MASK]     ·              2     0   x x x x . . .
light      ·              3     0   x x x x . . .
<|starto.. was            2     1   x x x x x . .
was        good           2     2   x x x x x x .
good       <|endofp..     2     3   x x x x x x x
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from glm_jax.arrays import Array
from glm_jax.batch import OBJECTIVES, Batch

_TOKEN = 10  # columns of a token in the table
SPACE = "\N{OPEN BOX}"
NOTHING = "\N{MIDDLE DOT}"  # no target; not a full stop, which may be a target
_PART = "\N{REPLACEMENT CHARACTER}"  # how a single byte is decoded
_HEAD = 8  # slots of part A that are listed of a row too long to list whole


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment of a row: the slots of one document's part A and part B.

    Attributes:
      start: the first slot.
      part_b: the first slot of part B; `end` if nothing was cut out (causal rows).
      end: one past the last slot.
      spans: (start, end) of each span in part B, in the order of part B.
    """

    start: int
    part_b: int
    end: int
    spans: list[tuple[int, int]]


def slots_used(row: Batch) -> int:
    """The number of slots of a row, a Batch of [T] arrays, without the padding at its end."""
    used = np.flatnonzero(row.attend_end > row.attend_start)
    return int(used[-1]) + 1 if len(used) else 0


def row_of(batch: Batch, index: int) -> Batch:
    """One row of a numpy Batch, as a Batch of [T] arrays."""
    return type(batch)(**{name: value[index] for name, value in batch.to_dict().items()})


def segments(row: Batch) -> list[Segment]:
    """The segments of a row, a Batch of [T] arrays."""
    used = slots_used(row)
    edges = np.flatnonzero(np.diff(row.attend_start[:used], prepend=-1, append=-1)).tolist()
    found = []
    for start, end in itertools.pairwise(edges):
        # Causal rows have block position 0 throughout.
        cut_out = row.block_positions[start:end].any()
        part_b = int(row.attend_end[start]) if cut_out else end
        heads = (part_b + np.flatnonzero(row.block_positions[part_b:end] == 1)).tolist()
        found.append(Segment(start, part_b, end, list(itertools.pairwise([*heads, end]))))
    return found


def objective_of(row: Batch) -> str:
    """The name of the objective with most targets in a row; "none" if there are no targets."""
    counts = np.bincount(row.objective, minlength=len(OBJECTIVES) + 1)
    names = {value: name for name, value in OBJECTIVES.items()}
    return names.get(int(counts[1:].argmax()) + 1, "none") if counts[1:].any() else "none"


def draw_mask(attend_start: Sequence[int], attend_end: Sequence[int], width: int = 64) -> str:
    """The attention mask as text: x where a query sees a key, . where it does not.

    draw_mask([0, 0, 0, 0], [2, 2, 3, 4])
        x x . .
        x x . .
        x x x .
        x x x x

    Beyond `width` slots, each sign stands for a square of pairs: x all of them, + some, . none.

    Args:
      attend_start, attend_end: [T] the interval of each query.
      width: the largest number of columns.
    """
    start, end = np.asarray(attend_start)[:, None], np.asarray(attend_end)[:, None]
    keys = np.arange(len(start))
    sees = (start <= keys) & (keys < end)
    side = max(1, -(-len(start) // width))
    edges = np.arange(0, len(start), side)
    seen = np.add.reduceat(np.add.reduceat(sees.astype(int), edges, axis=0), edges, axis=1)
    sizes = np.diff(edges, append=len(start))
    share = seen / np.outer(sizes, sizes)
    return "\n".join(
        " ".join("x" if s == 1 else "." if s == 0 else "+" for s in line) for line in share
    )


def show(
    row: Batch,
    name: Callable[[int], str],
    mask: bool = True,
    slots: int = 64,
    join: Callable[[list[int]], str] | None = None,
) -> str:
    """A table of the slots of a row: token, target, both positions, and the keys that it sees.

    Args:
      row: a Batch of [T] arrays.
      name: spells a token, as `tokenizer.decode([id])` does.
      mask: True: draw the mask beside the table; False: give the key interval as a Python slice,
        `attend_start:attend_end`.
      slots: most slots to list, at least 16; of a longer row, its beginning and that of part B.
      join: spells several tokens; with it the bytes of one character are shown as that character.
    """
    used = slots_used(row)
    listed = list(range(used))
    if used > slots:
        part_b = segments(row)[0].part_b
        begin = max(_HEAD, min(part_b - 1, used - slots + _HEAD))
        listed = [*range(_HEAD), *range(begin, begin + slots - _HEAD)]
    heading = [_fit("token", _TOKEN), _fit("target", _TOKEN), "  pos block"]
    lines = [" ".join(heading) + ("" if mask else "   sees")]
    grid = draw_mask(row.attend_start[:used], row.attend_end[:used], used).split("\n")
    before = -1
    tokens = names(_ids(row.tokens, 0, used), name, join)
    wanted = [int(row.targets[i]) if row.loss_weights[i] > 0 else None for i in range(used)]
    targets = names(wanted, name, join)
    for i in listed:
        if i != before + 1:
            lines.append(f"... {i - before - 1} more slots")
        before = i
        sees = grid[i] if mask else f"{row.attend_start[i]}:{row.attend_end[i]}"
        lines.append(
            f"{_fit(tokens[i], _TOKEN)} {_fit(targets[i], _TOKEN)} "
            f"{row.positions[i]:>5} {row.block_positions[i]:>5}   {sees}"
        )
    if before < used - 1:
        lines.append(f"... {used - 1 - before} more slots")
    return "\n".join(lines)


def names(
    ids: Sequence[int | None],
    name: Callable[[int], str],
    join: Callable[[list[int]], str] | None = None,
) -> list[str]:
    """The tokens of a list as they are shown; None is "·".

        ▁the, ▁, E5, BE, 88, None    ->    "␣the" "␣" "很 1/3" "很 2/3" "很 3/3" "·"

    Args:
      ids: the tokens, in order.
      name, join: see `show`.
    """
    shown = [NOTHING if id_ is None else visible(name(id_)) for id_ in ids]
    start = 0
    while join is not None and start < len(ids):
        size = _bytes_of_one(ids[start:], shown[start:], join)
        if size:
            character = join([id_ for id_ in ids[start : start + size] if id_ is not None])
            shown[start : start + size] = [f"{character} {i + 1}/{size}" for i in range(size)]
        start += max(1, size)
    return shown


def _bytes_of_one(
    ids: Sequence[int | None], shown: Sequence[str], join: Callable[[list[int]], str]
) -> int:
    """The number of leading tokens that are the bytes of one character; 0 if they are not."""
    for size in range(1, min(4, len(ids)) + 1):
        if shown[size - 1] != _PART:
            return 0
        text = join([id_ for id_ in ids[:size] if id_ is not None])
        if len(text) == 1 and text != _PART:
            return size
    return 0


def visible(text: str) -> str:
    """Shows the spaces at either end as ␣: " the" -> "␣the"."""
    inner = text.strip(" ")
    if not inner:
        return SPACE * len(text)
    left = len(text) - len(text.lstrip(" "))
    return SPACE * left + inner + SPACE * (len(text) - left - len(inner))


def spell(row: Batch, decode: Callable[[list[int]], str]) -> str:
    """Part A of each segment as text, and each span of part B after the position of its mask.

    segment 1: 4 slots of part A, 3 of part B
      part A  [CLS]the [MASK] light
      part B  position 2: was good

    Args:
      row: a Batch of [T] arrays.
      decode: ids to text, special tokens spelled.
    """
    lines: list[str] = []
    for number, segment in enumerate(segments(row), start=1):
        a, b = segment.part_b - segment.start, segment.end - segment.part_b
        text_a = _one_line(decode(_ids(row.tokens, segment.start, segment.part_b)))
        if not b:
            lines += [f"segment {number}: {a} slots, nothing cut out", f"  {text_a}"]
            continue
        lines.append(f"segment {number}: {a} slots of part A, {b} of part B")
        lines.append(f"  part A  {text_a}")
        for i, (start, end) in enumerate(segment.spans):
            # The targets: without the start token, with the end token.
            span = _ids(row.targets, start, end)
            label = "part B" if i == 0 else "      "
            shown = visible(_one_line(decode(span)))
            lines.append(f"  {label}  position {row.positions[start]}: {shown}")
    return "\n".join(lines)


def _ids(values: Array, start: int, end: int) -> list[int]:
    return [int(value) for value in values[start:end]]


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _fit(text: str, width: int) -> str:
    """Pads or cuts text to a number of columns; Chinese characters take two."""
    text = _one_line(text)
    if _columns(text) > width:
        while _columns(text) > width - 2:
            text = text[:-1]
        text += ".."
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
