"""The rounding of rows: the published arithmetic bit for bit, groups, and the search."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import glm_jax
from glm_jax.adapters.quantising import Quantize, quantised_rows, quantize_of
from glm_jax.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("model", ["chatglm1", "chatglm2", "chatglm3"])
def test_the_published_arithmetic_to_the_bit(model, bits):
    """README of tests/golden: integers exact, dequantised float32 exact."""
    vectors = np.load(GOLDEN / model / "quant_linear.npz")
    weight = vectors["weight_fp16"]
    for rows in (weight, weight.astype(np.float32)):
        values, scale = quantised_rows(rows, 1, Quantize(bits))
        assert (values.dtype, scale.dtype) == (np.int8, np.float16)
        np.testing.assert_array_equal(values, vectors[f"int{bits}_unpacked"])
        np.testing.assert_array_equal(scale[:, 0], vectors[f"int{bits}_scale_fp16"])
        dequantised = values * scale.astype(np.float32)
        np.testing.assert_array_equal(dequantised, vectors[f"int{bits}_dequant_fp32"])


def test_a_row_by_hand():
    values, scale = quantised_rows(np.array([[0.5, -1.0, 0.25]], np.float32), 1, Quantize(4))
    assert scale[0, 0] == np.float16(1 / 7)
    np.testing.assert_array_equal(values, [[4, -7, 2]])  # 3.501, -7.002 and 1.750


def test_halves_go_to_the_even_integer():
    # The scale is 1, so that quotients are the weights themselves.
    rows = np.array([[7, 0.5, 1.5, 2.5, -0.5, -2.5, -3.5]], np.float32)
    values, _ = quantised_rows(rows, 1, Quantize(4))
    np.testing.assert_array_equal(values, [[7, 0, 2, 2, 0, -2, -4]])


@pytest.mark.parametrize("search", [False, True])
def test_rows_of_zeros_and_of_almost_zeros_are_zeros(search):
    rows = np.zeros((3, 8), np.float32)
    rows[1] = 1e-9  # its scale is below the smallest float16
    rows[2] = 1e-5  # its scale is one of few bits, and rounded down a lot
    values, scale = quantised_rows(rows, 2, Quantize(8, 4, search))
    assert not values[:2].any()
    assert not scale[0].any()
    assert np.isfinite(scale).all()
    np.testing.assert_allclose(values[2] * scale[2, 0].astype(np.float32), 1e-5, rtol=0.3)
    assert np.abs(values).max() <= 127


def test_each_group_has_its_scale():
    rows = np.array([[7, 1, 70, 10]], np.float32)
    values, scale = quantised_rows(rows, 2, Quantize(4, 2))
    np.testing.assert_array_equal(scale, [[1, 10]])
    np.testing.assert_array_equal(values, [[7, 1, 7, 1]])
    one, _ = quantised_rows(rows, 1, Quantize(4))
    np.testing.assert_array_equal(one, [[1, 0, 7, 1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("groups", [1, 4])
def test_values_are_off_by_half_a_step_at_most(dtype, bits, groups):
    rng = np.random.default_rng(bits + groups)
    for _ in range(10):
        rows = (rng.normal(size=(5, 64)) * 10 ** rng.uniform(-3, 2)).astype(dtype)
        values, scale = quantised_rows(rows, groups, Quantize(bits, 64 // groups))
        assert np.abs(values).max() <= 2 ** (bits - 1) - 1
        steps = np.repeat(scale.astype(np.float32), 64 // groups, axis=1)
        off = np.abs(values * steps - rows.astype(np.float32))
        # Half a step, and what the scale and the quotient lose as float16.
        assert (off <= steps * (0.5 + 2.0**-10 * 2 ** (bits - 1))).all()


def error(rows, how):
    groups = how.num_groups("w", rows.shape[1])
    values, scale = quantised_rows(rows, groups, how)
    steps = np.repeat(scale.astype(np.float32), rows.shape[1] // groups, axis=1)
    return np.square(values * steps - rows).sum(1)


def test_a_search_is_never_worse_and_helps_four_bits():
    rows = np.random.default_rng(0).normal(size=(64, 1024)).astype(np.float32)
    for bits, group, gain in ((4, None, 0.65), (4, 128, 0.9), (8, None, 1.0)):
        plain = error(rows, Quantize(bits, group))
        searched = error(rows, Quantize(bits, group, search=True))
        assert (searched <= plain * (1 + 1e-5)).all()
        assert searched.sum() < gain * plain.sum()


def test_what_can_be_asked_for():
    assert glm_jax.Quantize is Quantize
    assert quantize_of(None) is None
    assert quantize_of("int8") == Quantize(bits=8)
    assert quantize_of("int4") == Quantize(bits=4)
    how = Quantize(4, 128, search=True)
    assert quantize_of(how) is how
    assert how.num_groups("w", 512) == 4
    for given in ("int2", 4, True, {"bits": 4}):
        with pytest.raises(UserError, match=r"quantize must be 'int8', 'int4' or a glm_jax.Quan"):
            quantize_of(given)
    for bits in (2, "4", True, 8.5):
        with pytest.raises(UserError, match="bits must be 8 or 4; got"):
            Quantize(bits)
    for size in (0, 1, "128", 2.5, True):
        with pytest.raises(UserError, match="group_size must be a whole number, at least 2; got"):
            Quantize(4, size)
    with pytest.raises(UserError, match=r"128 does not divide the 448 inputs of w; 112 does"):
        how.num_groups("w", 448)
    with pytest.raises(UserError, match="w has 7 inputs; int4 packs two in a byte"):
        Quantize(4).num_groups("w", 7)
