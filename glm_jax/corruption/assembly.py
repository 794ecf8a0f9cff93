"""From a text and its spans to part A and part B, one text at a time.

These are the functions to read (and to test against); `glm_jax.corruption.rows` does the same for
thousands of texts at once.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from glm_jax.batch import DOCUMENT, SPAN, prefix_bounds
from glm_jax.checks import whole_number, whole_numbers


@dataclasses.dataclass(frozen=True)
class AssemblyOptions:
    """What few callers of `assemble` vary.

    Attributes:
      objective: value of `Batch.objective` where something is predicted.
      block_positions: False: the second position is 1 in all of part B.
      position_offset: added to the first positions.
      span_position: the first position of all of part B, instead of the masks' indices.
      hidden: one flag per span token, in the order of part B: flagged inputs become
        `hidden_id`, targets stay.
      hidden_id: the id of hidden inputs.
    """

    objective: int = SPAN
    block_positions: bool = True
    position_offset: int = 0
    span_position: int | None = None
    hidden: Sequence[bool] | None = None
    hidden_id: int = -1

    def __post_init__(self):
        if self.hidden is not None and self.hidden_id < 0:
            raise ValueError(f"hidden must come with hidden_id, an id; got {self.hidden_id}")


PLAIN = AssemblyOptions()


def assemble(
    tokens: Sequence[int],
    spans: Sequence[Sequence[int]],
    order: Sequence[int],
    *,
    mask_id: int | Sequence[int],
    start_id: int | Sequence[int],
    end_id: int,
    options: AssemblyOptions = PLAIN,
) -> dict[str, np.ndarray]:
    """Cuts spans out of a text: part A has a mask for each span, part B the tokens of the spans.

    Part A sees itself from both sides; part B sees part A and itself from left to right (GLM,
    arXiv:2103.10360, section 2.1). With C = [CLS], E = eos, M = mask_id, S = start_id, P = end_id:

        assemble([C, a, b, c, d, e, E], spans=[(2, 4), (5, 6)], order=[1, 0], ...)
        tokens           C a M d M E | S e | S b c
        targets          C a M d M E | e P | b c P
        loss_weights     0 0 0 0 0 0 | 1 1 | 1 1 1
        positions        0 1 2 3 4 5 | 4 4 | 2 2 2      a span repeats the index of its mask
        block_positions  0 0 0 0 0 0 | 1 2 | 1 2 3
        attend_end       6 6 6 6 6 6 | 7 8 | 9 10 11    attend_start is 0

    Args:
      tokens: the n ids of the text.
      spans: half-open (start, end), ascending; they may touch but not overlap. Without any, part B
        is empty and nothing is predicted.
      order: order[i] is the index of the span that is placed i-th in part B.
      mask_id: stands in part A for a span; a sequence gives each span of part B, in its order
        there, an id of its own (sentinels).
      start_id: the first input of a span; one id, or one per span as for `mask_id`.
      end_id: the last target of a span.
      options: objective, positions, hidden inputs.

    Returns:
      The fields of a `Batch` by name, each of shape [n + 2 * len(spans)]; float32 weights, int32
      otherwise.

    Raises:
      ValueError: spans that overlap, do not ascend or leave the text; an order that is no
        permutation; a wrong number of ids or flags.
    """
    text = whole_numbers("tokens", tokens)
    pairs = [(start, end) for start, end in (whole_numbers("spans", span) for span in spans)]
    order = whole_numbers("order", order)
    _check_spans(pairs, order, len(text))
    part_a, mask_index = _part_a(text, pairs, _one_per_span("mask_id", mask_id, order))
    start_ids = _one_per_span("start_id", start_id, order)
    in_order = [(start_ids[i], text[slice(*pairs[i])], mask_index[i]) for i in order]
    return _fields(part_a, *_part_b(in_order, end_id, options), options)


def _part_a(
    text: list[int], spans: list[tuple[int, int]], mask_ids: list[int]
) -> tuple[list[int], list[int]]:
    """The text with a mask for each span, and the masks' indices in it."""
    part_a: list[int] = []
    mask_index = []
    previous = 0
    for (start, end), mask_id in zip(spans, mask_ids, strict=True):
        part_a += text[previous:start]
        mask_index.append(len(part_a))
        part_a.append(mask_id)
        previous = end
    return part_a + text[previous:], mask_index


def _part_b(
    spans: list[tuple[int, list[int], int]], end_id: int, options: AssemblyOptions
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Inputs, targets, positions and block positions of spans (start id, tokens, mask's index)."""
    inputs: list[int] = []
    targets: list[int] = []
    positions: list[int] = []
    blocks: list[int] = []
    flags = iter(_flags(options.hidden, sum(len(span) for _, span, _ in spans)))
    for start_id, span, index in spans:
        position = index + options.position_offset
        if options.span_position is not None:
            position = options.span_position
        inputs += [start_id, *(options.hidden_id if next(flags) else token for token in span)]
        targets += [*span, end_id]
        positions += [position] * (len(span) + 1)
        blocks += range(1, len(span) + 2) if options.block_positions else [1] * (len(span) + 1)
    return inputs, targets, positions, blocks


def assemble_prefix(
    tokens: Sequence[int],
    length: int,
    *,
    mask_id: int,
    start_id: int,
    objective: int = DOCUMENT,
    target_weights: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """Cuts off the end of a text, to be predicted from left to right, without an end token.

    With C = [CLS], E = eos, G = mask_id, S = start_id:

        assemble_prefix([C, a, b, c, d, E], length=3, ...)
        tokens           C a b G | S c d
        targets          C a b G | c d E
        loss_weights     0 0 0 0 | 1 1 1
        positions        0 1 2 3 | 3 3 3
        block_positions  0 0 0 0 | 1 2 3
        attend_end       4 4 4 4 | 5 6 7

    Args:
      tokens: the n ids of the text.
      length: tokens cut off, 1..n.
      mask_id, start_id: as in `assemble`.
      objective: value of `Batch.objective` where something is predicted.
      target_weights: loss weight of each token cut off; None: 1.

    Returns:
      The fields of a `Batch` by name, each of shape [n + 1].

    Raises:
      ValueError: length outside 1..n, or not one weight per token cut off.
    """
    text = whole_numbers("tokens", tokens)
    if not 1 <= length <= len(text):
        raise ValueError(f"length must lie in 1..{len(text)}, the number of tokens; got {length}")
    kept, tail = text[: len(text) - length], text[len(text) - length :]
    fields = _fields(
        part_a=[*kept, mask_id],
        inputs=[start_id, *tail[:-1]],
        targets=tail,
        positions=[len(kept)] * length,
        blocks=range(1, length + 1),
        options=AssemblyOptions(objective=objective),
    )
    if target_weights is not None:
        weights = np.asarray(target_weights, np.float32)
        if weights.shape != (length,):
            raise ValueError(f"target_weights must be {length} numbers; got shape {weights.shape}")
        fields["loss_weights"][-length:] = weights
        fields["objective"] *= fields["loss_weights"] > 0
    return fields


def _fields(
    part_a: Sequence[int],
    inputs: Sequence[int],
    targets: Sequence[int],
    positions: Sequence[int],
    blocks: Sequence[int],
    options: AssemblyOptions,
) -> dict[str, np.ndarray]:
    a, b = len(part_a), len(inputs)
    weights = np.repeat(np.array([0, 1], np.float32), [a, b])
    indices = range(options.position_offset, options.position_offset + a)
    attend_start, attend_end = prefix_bounds(a, a + b)
    return {
        "tokens": np.array([*part_a, *inputs], np.int32),
        "targets": np.array([*part_a, *targets], np.int32),
        "loss_weights": weights,
        "positions": np.array([*indices, *positions], np.int32),
        "block_positions": np.array([*[0] * a, *blocks], np.int32),
        "attend_start": attend_start,
        "attend_end": attend_end,
        "objective": np.where(weights > 0, options.objective, 0).astype(np.int32),
    }


def _check_spans(spans: list[tuple[int, int]], order: list[int], length: int) -> None:
    previous = 0
    for start, end in spans:
        if not previous <= start < end <= length:
            raise ValueError(
                "spans must be half-open (start, end), ascending, not overlapping and inside the "
                f"{length} tokens; got ({start}, {end}) in {spans}"
            )
        previous = end
    if sorted(order) != list(range(len(spans))):
        raise ValueError(f"order must be a permutation of 0..{len(spans) - 1}; got {order}")


def _one_per_span(name: str, ids: int | Sequence[int], order: list[int]) -> list[int]:
    """Ids by span index, from one id for all spans or one per span in the order of part B."""
    if np.ndim(ids) == 0:
        return [whole_number(name, ids)] * len(order)
    if len(ids) != len(order):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be one id or {len(order)}, one per span; got {ids}")
    by_span = dict(zip(order, ids, strict=True))  # type: ignore[arg-type]
    return whole_numbers(name, (by_span[i] for i in range(len(order))))


def _flags(hidden: Sequence[bool] | None, count: int) -> list[bool]:
    """One flag per span token, `count` of them."""
    if hidden is None:
        return [False] * count
    if len(hidden) != count:
        raise ValueError(f"hidden must be {count} flags, one per span token; got {len(hidden)}")
    return [bool(flag) for flag in hidden]
