"""From a plan to the arrays of a Batch: `assemble` and `assemble_prefix` for all rows at once.

Arrays are flat: over the R * T slots of the rows, or over all spans. Arrays of spans named `o_..`
are in the order of part B, the others in the order of the text.
"""

import dataclasses

import numpy as np

from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.plan import Plan
from glm_jax.ragged import group_of, starts, sums, sums_before, within_groups
from glm_jax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The slots of segments [P] and spans [S]."""

    local: np.ndarray  # [P] first slot of the segment, counted within its row
    first: np.ndarray  # [P] the same, counted over all rows
    part_a: np.ndarray  # [P] slots in part A
    part_b: np.ndarray  # [P] slots in part B
    used: np.ndarray  # [R] slots that are not padding
    covers_eos: np.ndarray  # [P] bool, a span takes eos
    segment: np.ndarray  # [S] segment of each span, in either order
    mask_index: np.ndarray  # [S] index of the mask in its part A
    o_start: np.ndarray  # [S] slot of the start token, counted over all rows
    o_length: np.ndarray  # [S] slots in part B

    @classmethod
    def of(cls, plan: Plan, num_rows: int, length: int) -> "_Layout":
        count = plan.num_spans
        segment = group_of(count)
        covers_eos = np.zeros(len(count), bool)
        covers_eos[segment[plan.start + plan.length > plan.size[segment]]] = True
        part_a = 1 + plan.size + plan.eos - sums(plan.length, count) + count
        part_b = sums(plan.length + plan.closed, count)
        total = part_a + part_b
        local = sums_before(total, np.bincount(plan.row, minlength=num_rows))
        first = plan.row * length + local
        o_length = (plan.length + plan.closed)[plan.order]
        return cls(
            local=local,
            first=first,
            part_a=part_a,
            part_b=part_b,
            used=np.bincount(plan.row, total, minlength=num_rows).astype(np.int64),
            covers_eos=covers_eos,
            segment=segment,
            mask_index=1 + plan.start - sums_before(plan.length - 1, count),
            o_start=(first + part_a)[segment] + sums_before(o_length, count),
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
    """Writes rows of `length` slots: segments one after the other, then padding.

    A segment attends only to itself and its positions count from 0. With the segments C a b c E and
    C d e, b and d masked (M), T = 16:

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
      num_rows: R; a row without segments is all padding.
      length: T.
      special: ids to insert.
      config: loss weights by objective, mask and sentinel ids.

    Returns:
      The fields of a Batch by name, [R, T].
    """
    slots = num_rows * length
    flat: dict[str, np.ndarray] = {
        "block_positions": np.zeros(slots, np.int32),
        "loss_weights": np.zeros(slots, np.float32),
        "objective": np.zeros(slots, np.int32),
    }
    if len(plan.row):
        layout = _Layout.of(plan, num_rows, length)
        in_row = np.tile(np.arange(length, dtype=np.int32), num_rows)
        sizes = _up_to_next(layout.first, slots)
        flat["attend_start"] = np.repeat(layout.local.astype(np.int32), sizes)
        flat["attend_end"] = np.repeat((layout.local + layout.part_a).astype(np.int32), sizes)
        flat["positions"] = in_row - flat["attend_start"]
        flat["tokens"] = _tokens(plan, layout, stored, special, config, slots)
        flat["targets"] = flat["tokens"].copy()
        _write_part_b(flat, plan, layout, stored, special, config, in_row)
        if (sentinel := config.published.sentinel_id) is not None:
            _write_sentinels(flat, plan, layout, sentinel, length)
        padding = np.repeat(np.arange(num_rows) * length + layout.used, length - layout.used)
        padding += within_groups(length - layout.used)
    else:
        flat |= {name: np.zeros(slots, np.int32) for name in _OVERWRITTEN}
        padding = np.arange(slots)
    for name in _OVERWRITTEN:
        flat[name][padding] = special.pad if name in ("tokens", "targets") else 0
    return {name: value.reshape(num_rows, length) for name, value in flat.items()}


# Fields whose padding must be overwritten; the others are 0 there from the start.
_OVERWRITTEN = ("tokens", "targets", "positions", "attend_start", "attend_end")


def _up_to_next(begin: np.ndarray, end: int) -> np.ndarray:
    """Sizes of runs that begin at the given slots; the first run is extended to begin at 0."""
    sizes = np.diff(begin, append=end)
    sizes[0] += begin[0]
    return sizes


def _tokens(
    plan: Plan,
    layout: _Layout,
    stored: np.ndarray,
    special: SpecialTokens,
    config: ObjectiveConfig,
    slots: int,
) -> np.ndarray:
    """[R * T] int32 tokens; padding is arbitrary."""
    # Rows are copied from `stored` in runs: within a run, index and slot differ by a constant.
    # Part A has one run up to its first mask, then one per mask; a mask overwrites the slot of the
    # span's last token. Part B has one run per span; a start token overwrites the slot of the token
    # before the span.
    count, segment = plan.num_spans, layout.segment
    sizes = 2 * count + 1
    head = starts(sizes)
    in_segment = within_groups(count)
    mask_run = head[segment] + 1 + in_segment
    span_run = mask_run + count[segment]
    source = plan.source - 1  # of text index 0, [CLS]
    mask_slot = layout.first[segment] + layout.mask_index
    source_of_span = source[segment] + 1 + plan.start

    begin = np.empty(int(sizes.sum()), np.int64)
    begin[head] = layout.first
    begin[mask_run] = mask_slot
    begin[span_run] = layout.o_start
    shift = np.empty_like(begin)
    shift[head] = source - layout.first
    shift[mask_run] = source_of_span + plan.length - 1 - mask_slot
    shift[span_run] = source_of_span[plan.order] - 1 - layout.o_start
    index = np.repeat(shift, _up_to_next(begin, slots))
    index += np.arange(slots)
    # An index outside `stored` belongs to [CLS], eos or padding, written below or by the caller.
    tokens = np.take(stored, index, mode="clip").astype(np.int32)

    masks = np.array(special.masks_by_objective(config.published.task_masks), np.int32)
    tokens[layout.first] = special.cls
    tokens[(layout.first + layout.part_a - 1)[plan.eos]] = special.eos
    # Written after eos: in the prefix form the mask is the last token of part A.
    tokens[mask_slot] = masks[plan.objective][segment]
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
    """Writes the fields of part B other than `tokens`, which is complete."""
    sizes = layout.o_length
    if not len(sizes):
        return
    within = within_groups(sizes)
    slots = np.repeat(layout.o_start, sizes) + within
    flat["attend_end"][slots] = in_row[slots] + 1
    flat["block_positions"][slots] = within + 1
    flat["positions"][slots] = np.repeat(layout.mask_index[plan.order], sizes)
    weights = np.array(
        [0, config.span_weight, config.sentence_weight, config.document_weight], np.float32
    )
    flat["loss_weights"][slots] = np.repeat(weights[plan.objective], layout.part_b)
    flat["objective"][slots] = np.repeat(plan.objective, layout.part_b)

    tokens, targets = flat["tokens"], flat["targets"]
    targets[slots] = np.take(tokens, slots + 1, mode="clip")
    last = layout.o_start + sizes - 1
    targets[last] = special.end
    open_ = np.flatnonzero(~plan.closed[plan.order])
    if len(open_):
        segment = layout.segment[open_]
        span = plan.order[open_]
        source = plan.source[segment] + plan.start[span] + plan.length[span] - 1
        final = np.take(stored, source, mode="clip")
        targets[last[open_]] = np.where(layout.covers_eos[segment], special.eos, final)


def _write_sentinels(
    flat: dict[str, np.ndarray], plan: Plan, layout: _Layout, sentinel_id: int, length: int
) -> None:
    """Gives each span after the first of part B a mask and a start id of its own, and part B the
    position T.

    sentinel_id 90, order of part B: second span, first span
    tokens     C a [90] d M E | S e | [91] b c        M, S: the span that comes first in part B
    positions  0 1 2    3 4 5 | T T | T    T T
    """
    in_b = within_groups(plan.num_spans)
    later = in_b > 0
    ids = sentinel_id + 2 * (in_b[later] - 1)
    segment, span = layout.segment[later], plan.order[later]
    flat["tokens"][layout.o_start[later]] = ids + 1
    masks = layout.first[segment] + layout.mask_index[span]
    flat["tokens"][masks] = flat["targets"][masks] = ids
    sizes = layout.o_length
    flat["positions"][np.repeat(layout.o_start, sizes) + within_groups(sizes)] = length
