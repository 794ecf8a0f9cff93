"""From a plan to the arrays of a Batch: `assemble` and `assemble_prefix` for all rows at once.

Arrays of places are flat over the R * T places of the rows, arrays of spans over all spans. Names
with `o_` are in the order of part B, the others in that of the text.
"""

import dataclasses

import numpy as np

from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.plan import Plan
from glm_jax.ragged import group_of, starts, sums, sums_before, within_groups
from glm_jax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where everything lies: of segments [P], of spans [S]."""

    local: np.ndarray  # [P] first place of the segment, counted in its row
    segment: np.ndarray  # [P] the same, counted in all rows
    part_a: np.ndarray  # [P] places of part A
    part_b: np.ndarray  # [P] places of part B
    used: np.ndarray  # [R] places that are not padding
    covers_eos: np.ndarray  # [P] bool, a span takes eos
    piece: np.ndarray  # [S] segment of each span, in either order
    mask_index: np.ndarray  # [S] index of the mask in its part A
    o_start: np.ndarray  # [S] place of the start token
    o_length: np.ndarray  # [S] places in part B

    @classmethod
    def of(cls, plan: Plan, num_rows: int, length: int) -> "_Layout":
        count = plan.num_spans
        piece = group_of(count)
        covers_eos = np.zeros(len(count), bool)
        covers_eos[piece[plan.start + plan.length > plan.size[piece]]] = True
        part_a = 1 + plan.size + plan.eos - sums(plan.length, count) + count
        part_b = sums(plan.length + plan.closed, count)
        total = part_a + part_b
        local = sums_before(total, np.bincount(plan.row, minlength=num_rows))
        segment = plan.row * length + local
        o_length = (plan.length + plan.closed)[plan.order]
        return cls(
            local=local,
            segment=segment,
            part_a=part_a,
            part_b=part_b,
            used=np.bincount(plan.row, total, minlength=num_rows).astype(np.int64),
            covers_eos=covers_eos,
            piece=piece,
            mask_index=1 + plan.start - sums_before(plan.length - 1, count),
            o_start=(segment + part_a)[piece] + sums_before(o_length, count),
            o_length=o_length,
        )


def write_rows(
    plan: Plan,
    stored: np.ndarray,
    num_rows: int,
    length: int,
    special: SpecialTokens,
    config: ObjectiveConfig,
) -> dict[str, np.ndarray]:
    """Writes rows of `length` places: segments one after the other, then padding.

    A segment attends to nothing outside of itself and its positions count from 0. With two texts
    C a b c E and C d e, b and d masked (M), T = 16:

        tokens           C a M c E S b | C M e S d | . . . .
        targets          C a M c E b P | C M e d P | . . . .
        loss_weights     0 0 0 0 0 1 1 | 0 0 0 1 1 | 0 0 0 0
        positions        0 1 2 3 4 2 2 | 0 1 2 1 1 | 0 0 0 0
        block_positions  0 0 0 0 0 1 2 | 0 0 0 1 2 | 0 0 0 0
        attend_start     0 0 0 0 0 0 0 | 7 7 7 7 7 | 0 0 0 0
        attend_end       5 5 5 5 5 6 7 | 10 10 10 11 12 | 0 0 0 0

    Args:
      plan: of R = `num_rows` rows.
      stored: [N] stored tokens that the plan's sources point into.
      num_rows: R; rows without a segment are all padding.
      length: T.
      special: ids to insert.
      config: loss weights by objective, which masks and start tokens there are.

    Returns:
      The fields of a Batch by name, [R, T].
    """
    places = num_rows * length
    flat: dict[str, np.ndarray] = {
        "block_positions": np.zeros(places, np.int32),
        "loss_weights": np.zeros(places, np.float32),
        "objective": np.zeros(places, np.int32),
    }
    if len(plan.row):
        layout = _Layout.of(plan, num_rows, length)
        in_row = np.tile(np.arange(length, dtype=np.int32), num_rows)
        sizes = _up_to_next(layout.segment, places)
        flat["attend_start"] = np.repeat(layout.local.astype(np.int32), sizes)
        flat["attend_end"] = np.repeat((layout.local + layout.part_a).astype(np.int32), sizes)
        flat["positions"] = in_row - flat["attend_start"]
        flat["tokens"] = _tokens(plan, layout, stored, special, config, places)
        flat["targets"] = flat["tokens"].copy()
        _write_part_b(flat, plan, layout, stored, special, config, in_row)
        if config.sentinel_id is not None:
            _write_sentinels(flat, plan, layout, config.sentinel_id, length)
        padding = np.repeat(np.arange(num_rows) * length + layout.used, length - layout.used)
        padding += within_groups(length - layout.used)
    else:
        flat |= {name: np.zeros(places, np.int32) for name in _OVERWRITTEN}
        padding = np.arange(places)
    for name in _OVERWRITTEN:
        flat[name][padding] = special.pad if name in ("tokens", "targets") else 0
    return {name: value.reshape(num_rows, length) for name, value in flat.items()}


# Fields that padding does not hold the right values of before it is written.
_OVERWRITTEN = ("tokens", "targets", "positions", "attend_start", "attend_end")


def _up_to_next(begin: np.ndarray, end: int) -> np.ndarray:
    """Sizes of runs that begin at the given places, the first one at 0 in any case."""
    sizes = np.diff(begin, append=end)
    sizes[0] += begin[0]
    return sizes


def _tokens(
    plan: Plan,
    layout: _Layout,
    stored: np.ndarray,
    special: SpecialTokens,
    config: ObjectiveConfig,
    places: int,
) -> np.ndarray:
    """[R * T] int32 tokens; padding holds anything."""
    # Within a run the index into `stored` is the place plus a constant. Part A has a run up to its
    # first mask and one from each mask on, the mask standing where the span's last token would.
    # Part B has one for each span, the start token standing where the token before it would.
    count, piece = plan.num_spans, layout.piece
    sizes = 2 * count + 1
    head = starts(sizes)
    in_piece = within_groups(count)
    mask_run = head[piece] + 1 + in_piece
    span_run = mask_run + count[piece]
    source = plan.source - 1  # of text index 0, [CLS]
    mask_place = layout.segment[piece] + layout.mask_index
    source_of_span = source[piece] + 1 + plan.start

    begin = np.empty(int(sizes.sum()), np.int64)
    begin[head] = layout.segment
    begin[mask_run] = mask_place
    begin[span_run] = layout.o_start
    shift = np.empty_like(begin)
    shift[head] = source - layout.segment
    shift[mask_run] = source_of_span + plan.length - 1 - mask_place
    shift[span_run] = source_of_span[plan.order] - 1 - layout.o_start
    index = np.repeat(shift, _up_to_next(begin, places))
    index += np.arange(places)
    # What lies outside of `stored` is [CLS], eos or padding, written below or by the caller.
    tokens = np.take(stored, index, mode="clip").astype(np.int32)

    masks = np.array(special.masks_by_objective(config.task_masks), np.int32)
    tokens[layout.segment] = special.cls
    tokens[(layout.segment + layout.part_a - 1)[plan.eos]] = special.eos
    # After eos: in the prefix form the mask is the last token of part A.
    tokens[mask_place] = masks[plan.objective][piece]
    tokens[layout.o_start] = special.start
    return tokens


def _write_part_b(
    flat: dict[str, np.ndarray],
    plan: Plan,
    layout: _Layout,
    stored: np.ndarray,
    special: SpecialTokens,
    config: ObjectiveConfig,
    in_row: np.ndarray,
) -> None:
    """Writes what part B has of its own; `flat["tokens"]` is complete."""
    sizes = layout.o_length
    if not len(sizes):
        return
    within = within_groups(sizes)
    places = np.repeat(layout.o_start, sizes) + within
    flat["attend_end"][places] = in_row[places] + 1
    flat["block_positions"][places] = within + 1
    flat["positions"][places] = np.repeat(layout.mask_index[plan.order], sizes)
    weights = np.array(
        [0, config.span_weight, config.sentence_weight, config.document_weight], np.float32
    )
    flat["loss_weights"][places] = np.repeat(weights[plan.objective], layout.part_b)
    flat["objective"][places] = np.repeat(plan.objective, layout.part_b)

    tokens, targets = flat["tokens"], flat["targets"]
    targets[places] = np.take(tokens, places + 1, mode="clip")
    last = layout.o_start + sizes - 1
    targets[last] = special.end
    open_ = np.flatnonzero(~plan.closed[plan.order])
    if len(open_):
        piece = layout.piece[open_]
        span = plan.order[open_]
        source = plan.source[piece] + plan.start[span] + plan.length[span] - 1
        final = np.take(stored, source, mode="clip")
        targets[last[open_]] = np.where(layout.covers_eos[piece], special.eos, final)


def _write_sentinels(
    flat: dict[str, np.ndarray], plan: Plan, layout: _Layout, sentinel_id: int, length: int
) -> None:
    """Gives a text's second and later spans of part B ids of their own, and part B the position T.

    sentinel_id 90, order of part B: second span, first span
    tokens     C a [90] d M E | S e | [91] b c        M, S of the span that is first in part B
    positions  0 1 2    3 4 5 | T T | T    T T
    """
    in_b = within_groups(plan.num_spans)
    later = in_b > 0
    ids = sentinel_id + 2 * (in_b[later] - 1)
    piece, span = layout.piece[later], plan.order[later]
    flat["tokens"][layout.o_start[later]] = ids + 1
    masks = layout.segment[piece] + layout.mask_index[span]
    flat["tokens"][masks] = flat["targets"][masks] = ids
    sizes = layout.o_length
    flat["positions"][np.repeat(layout.o_start, sizes) + within_groups(sizes)] = length
