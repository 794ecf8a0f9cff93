import jax.numpy as jnp
import numpy as np

from glm_jax import errors
from glm_jax.attention.tpu import tile_order
from glm_jax.attention.tpu.tile_order import from_tiles, in_tiles, is_held_in_tiles


def test_tiles_hold_eight_slots_of_a_head():
    x = np.arange(2 * 16 * 3 * 4).reshape(2, 16, 3, 4)
    tiles = in_tiles(jnp.asarray(x))
    assert tiles.shape == (2, 2, 3, 8, 4)
    np.testing.assert_array_equal(tiles[1, 1, 2, 5], x[1, 8 + 5, 2])
    np.testing.assert_array_equal(from_tiles(tiles), x)


def test_only_whole_tiles_of_16_bits():
    assert is_held_in_tiles(jnp.zeros((1, 16, 2, 4), jnp.bfloat16))
    assert not is_held_in_tiles(jnp.zeros((1, 13, 2, 4), jnp.bfloat16))
    assert not is_held_in_tiles(jnp.zeros((1, 16, 2, 4), jnp.float32))


def test_rows_that_tiles_do_not_divide_are_said_once_on_a_tpu(monkeypatch, caplog):
    monkeypatch.setattr(errors, "_SAID", set())
    x = jnp.zeros((1, 13, 2, 4), jnp.bfloat16)
    is_held_in_tiles(x)
    monkeypatch.setattr(tile_order, "target_platform", lambda: "tpu")
    # A step of decoding has one slot a row.
    is_held_in_tiles(x[:, :1])
    is_held_in_tiles(x)
    is_held_in_tiles(x)
    (message,) = caplog.messages
    assert "rows of 13 slots are not a multiple of 8" in message
