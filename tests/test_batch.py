"""Tests of glm_jax.batch."""

import jax
import numpy as np
import pytest

from glm_jax.batch import BYTES_PER_SLOT, DTYPES, Batch, empty_fields, prefix_bounds


def visible(prefix_length, length):
    start, end = prefix_bounds(prefix_length, length)
    keys = np.arange(length)
    return (start[:, None] <= keys) & (keys < end[:, None])


def fields(batch_size=2, length=3):
    names = ["tokens", "targets", "loss_weights", "positions", "block_positions"]
    names += ["attend_start", "attend_end"]
    return {name: np.zeros((batch_size, length), np.int32) for name in names}


@pytest.mark.parametrize("length", [0, 1, 5])
def test_prefix_bounds_equal_the_definition_of_the_prefix_mask(length):
    """Key j is visible to query i if and only if j <= i or j < prefix (reference, section 6)."""
    for prefix in range(length + 1):
        i, j = np.mgrid[:length, :length]
        np.testing.assert_array_equal(visible(prefix, length), (j <= i) | (j < prefix))


def test_prefix_bounds_are_int32():
    start, end = prefix_bounds(2, 4)
    assert (start.dtype, end.dtype) == (np.int32, np.int32)
    assert (start.tolist(), end.tolist()) == ([0, 0, 0, 0], [2, 2, 3, 4])


@pytest.mark.parametrize(("prefix", "length"), [(-1, 3), (4, 3), (0, -1)])
def test_prefix_outside_the_text_is_refused(prefix, length):
    with pytest.raises(ValueError, match=r"0\.\.length"):
        prefix_bounds(prefix, length)


@pytest.mark.parametrize(("prefix", "length"), [(1.5, 3), (True, 3), (1, 3.0), (float("nan"), 3)])
def test_prefix_bounds_are_of_whole_numbers(prefix, length):
    with pytest.raises(ValueError, match="must be a whole number"):
        prefix_bounds(prefix, length)


def test_objective_may_be_left_out():
    batch = Batch.from_dict(fields())
    np.testing.assert_array_equal(batch.objective, np.zeros((2, 3), np.int32))
    assert batch.shape == (2, 3)


def test_lists_are_taken_as_arrays():
    given = {name: value.tolist() for name, value in fields().items()}
    assert Batch.from_dict(given).tokens.shape == (2, 3)


def test_unknown_and_missing_fields_are_named():
    given = fields() | {"token": np.zeros((2, 3))}
    del given["positions"]
    with pytest.raises(ValueError, match=r"unknown \['token'\], missing \['positions'\]"):
        Batch.from_dict(given)


def test_shapes_must_agree():
    given = fields() | {"targets": np.zeros((2, 4))}
    with pytest.raises(ValueError, match=r"Batch.targets .* \(2, 3\); got \(2, 4\)"):
        Batch.from_dict(given)
    with pytest.raises(ValueError, match=r"\[B, T\]; got \(3,\)"):
        Batch.from_dict({name: np.zeros(3) for name in fields()})


def test_a_batch_is_a_pytree():
    batch = Batch.from_dict(fields())
    doubled = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), batch)
    assert isinstance(doubled, Batch)
    assert doubled.shape == (4, 3)
    assert len(jax.tree.leaves(batch)) == 8


def test_to_dict_is_the_inverse_of_from_dict():
    batch = Batch.from_dict(fields())
    again = Batch.from_dict(batch.to_dict())
    assert all(a is b for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(again), strict=True))


def test_slots_that_hold_nothing():
    fields = empty_fields((2, 3), pad_id=7)
    assert list(fields) == list(DTYPES) == list(Batch.__dataclass_fields__)
    assert BYTES_PER_SLOT == 8 * 4
    for name, value in fields.items():
        assert (value.shape, value.dtype) == ((2, 3), DTYPES[name])
        assert np.all(value == (7 if name in ("tokens", "targets") else 0))
    assert fields["tokens"] is not fields["targets"]
    assert {name for name, dtype in DTYPES.items() if dtype == np.float32} == {"loss_weights"}
