import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.positions import (
    check_positions,
    exchange_neighbours,
    make_positions,
    make_rotation,
    rotary_frequencies,
    rotate,
)

TWO = ModelConfig(max_positions=8, position_encoding="learned_block")
ONE = ModelConfig(max_positions=8, position_encoding="learned")


def batch(positions, block_positions):
    fields = {name: np.zeros((1, 3), np.int32) for name in Batch.__dataclass_fields__}
    fields["positions"] = np.array([positions])
    fields["block_positions"] = np.array([block_positions])
    return Batch(**fields)


def test_published_tables_have_one_row_more():
    assert TWO.table_rows == 9
    assert ONE.table_rows == 8


def test_ids_inside_the_tables_pass():
    check_positions(batch([0, 8, 3], [0, 0, 8]), TWO)
    check_positions(batch([0, 7, 3], [0, 0, 99]), ONE)


@pytest.mark.parametrize(
    ("positions", "block_positions", "config", "message"),
    [
        ([0, 9, 3], [0, 0, 0], TWO, r"positions has 9; .* 9 rows \(0..8, model.max_positions=8\)"),
        ([0, 1, 3], [0, 12, 0], TWO, r"block_positions has 12"),
        ([0, 8, 3], [0, 0, 0], ONE, r"positions has 8; .* 8 rows"),
        ([0, -1, 3], [0, 0, 0], TWO, r"positions has -1"),
    ],
)
def test_ids_outside_are_named(positions, block_positions, config, message):
    with pytest.raises(UserError, match=message):
        check_positions(batch(positions, block_positions), config)


def test_pairs_are_turned_and_the_rest_of_a_head_is_not():
    """A quarter turn of (a b) and a half turn of (c d); e and f pass."""
    rotation = make_rotation(jnp.array([[[np.pi / 2, np.pi]]]), 1.0, head_dim=6)
    head = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).reshape(1, 1, 1, 6)
    np.testing.assert_allclose(rotate(head, rotation)[0, 0, 0], [-2, 1, -3, -4, 5, 6], atol=1e-6)
    np.testing.assert_allclose(rotation.cos[0, 0, 0], [0, 0, -1, -1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(rotation.sin[0, 0, 0], [-1, 1, 0, 0, 0, 0], atol=1e-6)


def test_two_dimensions_turn_a_half_of_each_head():
    """H = 8, base 10000: pairs of a half turn by 1 and by 1/100 per position."""
    config = ModelConfig(
        embed_dim=16, num_heads=2, position_encoding="rotary_block", rotary_fraction=1.0
    ).resolved()
    encoding = make_positions(config, key=jax.random.key(0))
    rotation = encoding.rotation(jnp.array([[3]]), jnp.array([[50]]))
    angles = np.repeat([3, 0.03, 50, 0.5], 2)
    np.testing.assert_allclose(rotation.cos[0, 0, 0], np.cos(angles), atol=1e-5)
    signs = np.tile([-1, 1], 4)
    np.testing.assert_allclose(rotation.sin[0, 0, 0], signs * np.sin(angles), atol=1e-5)
    assert config.table_rows == config.max_positions


def test_yarn_at_the_sizes_of_glm_4():
    """64 rotated features, base 10000, 32,768 positions before, four times as many after.

    Pair j turns 32768 / (2 pi 10000^(j / 32)) times in the old context: 32 times at j = 17.7, once
    at j = 29.7. So pairs up to 17 keep their frequency, those from 30 on have a quarter of it, and
    a straight ramp of 13 steps lies between.
    """
    config = ModelConfig(
        embed_dim=256,
        num_heads=2,
        position_encoding="rotary",
        rotary_scaling="yarn",
        rotary_factor=4.0,
        max_positions=131_072,
    )
    frequencies, magnitude = rotary_frequencies(config, config.embed_dim // 2)
    plain = 10_000.0 ** (-np.arange(32) / 32)
    expected = np.ones(32)
    expected[17:31] = 1 - 0.75 * np.arange(14) / 13
    expected[30:] = 0.25
    np.testing.assert_allclose(frequencies / plain, expected, rtol=1e-5)
    assert magnitude == pytest.approx(1 + 0.1 * np.log(4))


@pytest.mark.parametrize(
    ("scaling", "share", "base"), [("none", 1, 1e4), ("linear", 1 / 8, 1e4), ("base", 1, 8e4)]
)
def test_other_ways_to_a_longer_context(scaling, share, base):
    options = {"position_encoding": "rotary", "rotary_scaling": scaling, "rotary_factor": 8.0}
    frequencies, magnitude = rotary_frequencies(
        ModelConfig(embed_dim=64, num_heads=2, **options), 32
    )
    np.testing.assert_allclose(frequencies, share * base ** (-np.arange(8) / 8), rtol=1e-5)
    assert magnitude == 1.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neighbours_are_exchanged_exactly(dtype):
    x = np.random.default_rng(0).normal(size=(3, 8))
    x = np.asarray(jnp.asarray(x, dtype).astype(jnp.float32))
    found = exchange_neighbours(jnp.asarray(x, dtype)).astype(jnp.float32)
    np.testing.assert_array_equal(found, x[:, [1, 0, 3, 2, 5, 4, 7, 6]])


def test_16_bits_are_rotated_as_32_bits_are():
    random = np.random.default_rng(0)
    angles = jnp.asarray(random.normal(size=(2, 16, 2)), jnp.float32)
    rotation = make_rotation(angles, 1.0, head_dim=8)
    x = jnp.asarray(random.normal(size=(2, 16, 3, 8)), jnp.bfloat16)
    expected = rotate(x.astype(jnp.float32), rotation).astype(jnp.bfloat16)
    for slots in (16, 13):
        part = type(rotation)(rotation.cos[:, :slots], rotation.sin[:, :slots])
        found = rotate(x[:, :slots], part)
        np.testing.assert_array_equal(
            found.astype(jnp.float32), expected[:, :slots].astype(jnp.float32)
        )


def test_angles_are_rounded_to_16_bits_where_the_config_says():
    """10000^(-1/2) is 0.01; the nearest number in 11 bits is 1311 / 2^17."""
    config = ModelConfig(position_encoding="rotary_block", rotary_fraction=1.0)
    exact, _ = rotary_frequencies(config, 4)
    rounded, _ = rotary_frequencies(dataclasses.replace(config, rotary_dtype="float16"), 4)
    assert exact.dtype == rounded.dtype == np.float32
    np.testing.assert_array_equal(exact, np.float32([1, 0.01]))
    np.testing.assert_array_equal(rounded, [1, 1311 / 2**17])
