import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.intervals import (
    EMPTY,
    PARTIAL,
    WHOLE,
    block_kinds,
    block_size,
    list_steps,
    unpack,
)
from glm_jax.batch import prefix_bounds


def packed_segments(lengths, prefixes, total):
    """[1, total] bounds of consecutive segments; the rest is padding."""
    start, end, at = np.zeros(total, np.int32), np.zeros(total, np.int32), 0
    for length, prefix in zip(lengths, prefixes, strict=True):
        first, last = prefix_bounds(prefix, length)
        start[at : at + length], end[at : at + length] = first + at, last + at
        at += length
    return jnp.asarray(start[None]), jnp.asarray(end[None])


def steps_of(kinds):
    """Every row's (outer, inner, first, last, kind) as plain tuples, and the grid's length."""
    steps = list_steps(jnp.asarray(kinds))
    parts = [np.asarray(part).reshape(len(kinds), steps.size) for part in unpack(steps.packed)]
    rows = [list(zip(*(p[row].tolist() for p in parts), strict=True)) for row in range(len(kinds))]
    return rows, int(steps.longest)


def test_the_drawn_example():
    kinds = block_kinds(*packed_segments([4, 4], [2, 0], 8), 2, 2, 4)
    np.testing.assert_array_equal(
        kinds[0],
        [
            [WHOLE, EMPTY, EMPTY, EMPTY],
            [WHOLE, PARTIAL, EMPTY, EMPTY],
            [EMPTY, EMPTY, PARTIAL, EMPTY],
            [EMPTY, EMPTY, WHOLE, PARTIAL],
        ],
    )
    (row,), count = steps_of(kinds)
    assert count == 6
    assert [step[:2] for step in row[:6]] == [(0, 0), (1, 0), (1, 1), (2, 2), (3, 2), (3, 3)]
    assert [step[2] for step in row[:6]] == [True, True, False, True, True, False]
    assert [step[3] for step in row[:6]] == [True, False, True, True, False, True]
    (row,), count = steps_of(np.swapaxes(kinds, 1, 2))
    assert [step[:2] for step in row[:count]] == [(0, 0), (0, 1), (1, 1), (2, 2), (2, 3), (3, 3)]


def random_bounds(seed, rows=3, queries=24, keys=30):
    """Any bounds: empty, inverted, whole rows, single keys."""
    rng = np.random.default_rng(seed)
    start, end = rng.integers(0, keys + 1, (2, rows, queries)).astype(np.int32)
    whole = rng.random((rows, queries // 4)).repeat(4, 1) < 0.4
    return np.where(whole, 0, start), np.where(whole, keys, end)


@pytest.mark.parametrize("seed", range(8))
def test_kinds_are_those_of_the_mask(seed):
    start, end = random_bounds(seed)
    kinds = np.asarray(block_kinds(jnp.asarray(start), jnp.asarray(end), 4, 6, 5))
    keys = np.arange(30)
    mask = (start[..., None] <= keys) & (keys < end[..., None])
    blocks = mask.reshape(3, 6, 4, 5, 6)
    np.testing.assert_array_equal(kinds == WHOLE, blocks.all((2, 4)))
    some = blocks.any((2, 4))
    assert (kinds[some] != EMPTY).all()
    for row, block in np.ndindex(3, 6):
        needed = np.flatnonzero(some[row, block])
        counted = np.flatnonzero(kinds[row, block])
        if len(needed):
            np.testing.assert_array_equal(counted, np.arange(needed[0], needed[-1] + 1))
        else:
            assert not len(counted)


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_steps_visit_what_is_needed_once_and_write_every_block(seed, by_key):
    start, end = random_bounds(seed)
    end[0], end[1, 8:20] = 0, 0
    kinds = np.asarray(block_kinds(jnp.asarray(start), jnp.asarray(end), 4, 6, 5))
    kinds = np.swapaxes(kinds, 1, 2) if by_key else kinds
    rows, count = steps_of(kinds)
    lengths = []
    for row, steps in zip(kinds, rows, strict=True):
        busy = [step for step in steps if step[4] != EMPTY]
        assert {s[:2]: s[4] for s in busy} == {
            (i, j): row[i, j] for i, j in np.argwhere(row).tolist()
        }
        assert len(busy) == np.count_nonzero(row)
        for field in (2, 3):
            assert [s[0] for s in steps if s[field]] == list(range(len(row)))
        assert [s[0] for s in steps] == sorted(s[0] for s in steps)
        last = max(index for index, step in enumerate(steps) if step[3])
        assert {step[:2] for step in steps[last:]} == {steps[last][:2]}
        assert not any(step[4] for step in steps[last + 1 :])
        lengths.append(last + 1)
    assert count == max(lengths)


def test_padding_costs_a_step_a_block_and_no_more():
    start, end = packed_segments([8], [0], 64)
    (row,), count = steps_of(block_kinds(start, end, 8, 8, 8))
    assert count == 8
    assert [step[4] for step in row] == [PARTIAL] + [EMPTY] * 63


def test_causal_rows_take_half_of_the_square():
    start, end = packed_segments([1024], [0], 1024)
    kinds = jax.jit(block_kinds, static_argnums=(2, 3, 4))(start, end, 128, 128, 8)
    _, count = steps_of(kinds)
    assert count == 8 * 9 // 2
    assert np.count_nonzero(np.asarray(kinds) == PARTIAL) == 8


@pytest.mark.parametrize(
    ("length", "size"),
    [(1, 128), (128, 128), (129, 256), (512, 512), (520, 384), (1000, 512), (1537, 512)],
)
def test_block_sizes(length, size):
    assert block_size(length, 512) == size


def test_large_block_numbers_survive_packing():
    kinds = np.zeros((1, 2, 9000), np.int32)
    kinds[0, 1, 8999] = WHOLE
    (row,), _ = steps_of(kinds)
    assert row[1] == (1, 8999, True, True, WHOLE)
