import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.attention.call import HIDDEN
from glm_jax.attention.dropout import keep_mask, mask_rows
from glm_jax.attention.tpu.blocks import EMPTY, PARTIAL, WHOLE, Step
from glm_jax.attention.tpu.layout import Place, Plan
from glm_jax.attention.tpu.tiles import kept, of_part, run_kind, scaled, scores

PLAN = Plan(
    num_heads=3,
    num_kv_heads=3,
    width=128,
    pack=1,
    block_q=8,
    block_k=16,
    num_keys=50,
    scale=1.0,
    dropout_rate=0.3,
    interpret=True,
)
PACKED = dataclasses.replace(PLAN, pack=3)


def test_a_tile_is_keys_by_queries_and_hides_by_interval():
    k, q = jnp.arange(4.0)[:, None], jnp.array([[1.0], [10.0], [100.0]])
    start, end = jnp.array([[5, 4, 9]]), jnp.array([[7, 4, 20]])
    s = np.asarray(scores(k, q, (start, end), 4))
    np.testing.assert_array_equal(
        s, np.float32([[HIDDEN] * 3, [1, HIDDEN, HIDDEN], [2, HIDDEN, HIDDEN], [HIDDEN] * 3])
    )
    np.testing.assert_array_equal(scores(k, q, None, 4), np.arange(4.0)[:, None] * [1, 10, 100])


def test_the_mask_of_a_tile_is_its_part_of_the_whole_mask():
    key, shape = jax.random.key(0), (2, 3, 40, 50)
    whole = np.asarray(keep_mask(key, 0.3, shape))
    rows = mask_rows(key, shape)
    seeds = jax.lax.bitcast_convert_type(rows.seeds, jnp.int32).reshape(-1)
    places = jax.lax.bitcast_convert_type(rows.places, jnp.int32)[None, 24:32]
    for row, head in np.ndindex(2, 3):
        # Heads one a block, and all three in one.
        for plan, block, part in ((PLAN, head, 0), (PACKED, 0, head)):
            tile = kept(seeds, Place(row, block, block, None), part, places, 32, plan)
            np.testing.assert_array_equal(tile, whole[row, head, 24:32, 32:48].T)


def test_the_columns_of_a_head_stay_and_the_others_are_0():
    x = jnp.arange(1.0, 7.0)[None] * jnp.ones((2, 1))
    plan = dataclasses.replace(PACKED, width=6)
    for part in range(3):
        expected = np.zeros((2, 6))
        expected[:, 2 * part : 2 * part + 2] = [2 * part + 1, 2 * part + 2]
        np.testing.assert_array_equal(of_part(x, part, plan), expected)
    assert of_part(x, 0, PLAN) is x


def test_a_tile_runs_once_with_a_mask_only_where_it_needs_one():
    for kind, expected in ((EMPTY, [0, 0]), (PARTIAL, [0, 1]), (WHOLE, [1, 0])):
        runs = []
        step = Step(0, 0, True, True, kind)

        def tile(masked, runs=runs):
            runs.append(masked)

        with jax.disable_jit():
            run_kind(step, tile)
        assert [runs.count(masked) for masked in (False, True)] == expected


def test_scaled_queries_keep_their_dtype():
    q = jnp.array([1.0, 3.0], jnp.bfloat16)
    y = scaled(q, 0.3)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jnp.array([0.3, 0.9], jnp.bfloat16))
