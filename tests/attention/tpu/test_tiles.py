import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.attention.dropout import keep_mask, mask_rows
from glm_jax.attention.intervals import EMPTY, HIDDEN, PARTIAL, WHOLE, Step, block_kinds, list_steps
from glm_jax.attention.tpu.tiles import (
    Location,
    Plan,
    by_key,
    by_query,
    cost,
    isolate_head,
    run_kind,
    scaled,
    scores,
    specs,
    tile_mask,
)
from glm_jax.batch import prefix_bounds

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
# Four heads over two key heads, for the tests of a grid.
GRID = Plan(
    num_heads=4,
    num_kv_heads=2,
    width=128,
    pack=1,
    block_q=128,
    block_k=128,
    num_keys=512,
    scale=1.0,
    dropout_rate=0.0,
    interpret=True,
)


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
    offsets = jax.lax.bitcast_convert_type(rows.offsets, jnp.int32)[None, 24:32]
    for row, head in np.ndindex(2, 3):
        # Heads one a block, and all three in one.
        for plan, block, packed_head in ((PLAN, head, 0), (PACKED, 0, head)):
            at = Location(row, block, block, None)
            tile = tile_mask(seeds, at, packed_head, offsets, 32, plan)
            np.testing.assert_array_equal(tile, whole[row, head, 24:32, 32:48].T)


def test_the_columns_of_a_head_stay_and_the_others_are_0():
    x = jnp.arange(1.0, 7.0)[None] * jnp.ones((2, 1))
    plan = dataclasses.replace(PACKED, width=6)
    for head in range(3):
        expected = np.zeros((2, 6))
        expected[:, 2 * head : 2 * head + 2] = [2 * head + 1, 2 * head + 2]
        np.testing.assert_array_equal(isolate_head(x, head, plan), expected)
    assert isolate_head(x, 0, PLAN) is x


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


def steps(swapped):
    bounds = [jnp.stack([x, x]) for x in prefix_bounds(0, 512)]
    kinds = block_kinds(*bounds, 128, 128, 4)
    return list_steps(jnp.swapaxes(kinds, 1, 2) if swapped else kinds)


def test_a_block_of_queries_stays_while_its_keys_go_by():
    listed = steps(False)
    blocks = specs(GRID, by_query(GRID, listed.size), keys_outer=False)
    grid = [(1, 3, p, listed.packed) for p in range(int(listed.longest))]
    queries = [tuple(map(int, blocks.queries.index_map(*g))) for g in grid]
    keys = [tuple(map(int, blocks.keys.index_map(*g))) for g in grid]
    pairs = [(i, j) for i in range(4) for j in range(i + 1)]
    # Head 3 lies in the fourth block of columns of q, and uses the second of k.
    assert queries == [(1, i, 3) for i, _ in pairs]
    assert keys == [(1, j, 1) for _, j in pairs]
    assert tuple(map(int, blocks.row.index_map(*grid[-1]))) == (1, 0, 3)
    assert tuple(map(int, blocks.shared_row.index_map(*grid[-1]))) == (0, 0, 3)
    assert tuple(map(int, blocks.head_row.index_map(*grid[-1]))) == (1, 3, 0, 3)


def test_a_block_of_keys_stays_while_the_queries_of_its_heads_go_by():
    listed = steps(True)
    blocks = specs(GRID, by_key(GRID, listed.size), keys_outer=True)
    grid = [(0, 1, p, g, listed.packed) for p in range(int(listed.longest)) for g in range(2)]
    queries = [tuple(map(int, blocks.queries.index_map(*g))) for g in grid]
    keys = [tuple(map(int, blocks.keys.index_map(*g))) for g in grid]
    expected = [(i, j, head) for j in range(4) for i in range(j, 4) for head in (2, 3)]
    assert queries == [(0, i, head) for i, _, head in expected]
    assert keys == [(0, j, 1) for _, j, _ in expected]


def test_cost_counts_half_of_all_pairs():
    q, k = jnp.zeros((2, 256, 4 * 128), jnp.bfloat16), jnp.zeros((2, 512, 2 * 128), jnp.bfloat16)
    estimate = cost(q, k, GRID, products=2, arrays=2)
    pairs = 2 * 4 * 256 * 512 // 2
    assert estimate.transcendentals == pairs
    assert estimate.flops == 2 * 2 * pairs * 128
    fetched = pairs // (128 * 128) * 2 * 128 * 128
    assert estimate.bytes_accessed == 2 * (2 * q.size + fetched)
