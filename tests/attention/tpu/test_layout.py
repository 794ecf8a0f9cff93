import jax.numpy as jnp
import numpy as np

from glm_jax.attention.tpu.blocks import block_kinds, list_steps
from glm_jax.attention.tpu.layout import Plan, by_key, by_query, cost, specs
from glm_jax.batch import prefix_bounds

PLAN = Plan(
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


def steps(turned):
    bounds = [np.stack([x, x]) for x in prefix_bounds(0, 512)]
    kinds = block_kinds(*bounds, 128, 128, 4)
    return list_steps(jnp.swapaxes(kinds, 1, 2) if turned else kinds)


def test_a_block_of_queries_stays_while_its_keys_go_by():
    listed = steps(False)
    at = specs(PLAN, by_query(PLAN, listed.size), keys_outer=False)
    grid = [(1, 3, p, listed.packed) for p in range(int(listed.longest))]
    queries = [tuple(map(int, at.queries.index_map(*g))) for g in grid]
    keys = [tuple(map(int, at.keys.index_map(*g))) for g in grid]
    pairs = [(i, j) for i in range(4) for j in range(i + 1)]
    # Head 3 lies in the fourth block of columns of q, and uses the second of k.
    assert queries == [(1, i, 3) for i, _ in pairs]
    assert keys == [(1, j, 1) for _, j in pairs]
    assert tuple(map(int, at.row.index_map(*grid[-1]))) == (1, 0, 3)
    assert tuple(map(int, at.shared_row.index_map(*grid[-1]))) == (0, 0, 3)
    assert tuple(map(int, at.head_row.index_map(*grid[-1]))) == (1, 3, 0, 3)


def test_a_block_of_keys_stays_while_the_queries_of_its_heads_go_by():
    listed = steps(True)
    at = specs(PLAN, by_key(PLAN, listed.size), keys_outer=True)
    grid = [(0, 1, p, g, listed.packed) for p in range(int(listed.longest)) for g in range(2)]
    queries = [tuple(map(int, at.queries.index_map(*g))) for g in grid]
    keys = [tuple(map(int, at.keys.index_map(*g))) for g in grid]
    expected = [(i, j, head) for j in range(4) for i in range(j, 4) for head in (2, 3)]
    assert queries == [(0, i, head) for i, _, head in expected]
    assert keys == [(0, j, 1) for _, j, _ in expected]


def test_cost_counts_half_of_all_pairs():
    q, k = jnp.zeros((2, 256, 4 * 128), jnp.bfloat16), jnp.zeros((2, 512, 2 * 128), jnp.bfloat16)
    estimate = cost(q, k, PLAN, products=2, arrays=2)
    pairs = 2 * 4 * 256 * 512 // 2
    assert estimate.transcendentals == pairs
    assert estimate.flops == 2 * 2 * pairs * 128
    fetched = pairs // (128 * 128) * 2 * 128 * 128
    assert estimate.bytes_accessed == 2 * (2 * q.size + fetched)
