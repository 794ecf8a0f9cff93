"""The kernels, interpreted on CPU, against the dense reference and against what they promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.call import make_call
from glm_jax.attention.dropout import mask_rows
from glm_jax.attention.tpu.interval_attention import block_sizes, interval_attention, refusal
from glm_jax.attention.xla import dense
from tests.attention.against_dense import (
    any_intervals,
    check,
    check_blocks_unseen,
    check_empty_intervals,
    check_rounded,
    draw,
    kernels_of_a_layer,
    packed_rows,
    results,
)

NAMES = ["forward", "query_gradient", "key_gradient"]


def both(*arguments, rate=0.0, blocks=(128, 128)):
    """`results` of the kernel and of the reference."""
    q, k = arguments[:2]
    key, scale = jax.random.key(5), 1.3 * q.shape[-1] ** -0.5

    def kernel(*arguments):
        shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        rows = mask_rows(key, shape) if rate else None
        options = {"dropout_rate": rate, "mask_rows": rows, "blocks": blocks, "interpret": True}
        return interval_attention(*arguments, scale=scale, **options)

    def reference(*arguments):
        options = {"dropout_rate": rate, "dropout_key": key if rate else None}
        return dense(make_call(*arguments, scale=scale, **options))

    return results(kernel, *arguments), results(reference, *arguments)


@pytest.mark.parametrize(
    ("num_kv_heads", "head_dim", "rate"),
    [(4, 64, 0.0), (4, 64, 0.25), (2, 128, 0.0), (2, 64, 0.25), (1, 40, 0.1)],
)
def test_packed_rows_with_padding(num_kv_heads, head_dim, rate):
    kv = (2, 384, num_kv_heads, head_dim)
    q, k, v = draw((2, 384, 4, head_dim), kv, kv)
    check(*both(q, k, v, *packed_rows(384), rate=rate))


@pytest.mark.parametrize("blocks", [(128, 256), (384, 128)])
def test_block_sizes_change_nothing(blocks):
    q, k, v = draw((2, 384, 2, 16), (2, 384, 1, 16), (2, 384, 1, 16))
    check(*both(q, k, v, *packed_rows(384), blocks=blocks))


@pytest.mark.parametrize(
    ("length", "size", "rate"), [(1, 300, 0.0), (130, 520, 0.1), (300, 7, 0.0)]
)
def test_any_lengths_of_queries_and_keys(length, size, rate):
    q, k, v = draw((2, length, 2, 16), (2, size, 2, 16), (2, size, 2, 16))
    check(*both(q, k, v, *any_intervals(length, size), blocks=None, rate=rate))


def test_a_part_of_the_queries_sees_the_keys_of_the_whole_row():
    """As a device has it whose axis splits the slots: its bounds stay indices into the row."""
    q, k, v = draw((2, 384, 2, 16), (2, 384, 2, 16), (2, 384, 2, 16))
    start, end = packed_rows(384)
    part = slice(100, 290)
    run = jax.jit(functools.partial(interval_attention, blocks=(128, 128), interpret=True))
    whole, _ = run(q, k, v, start, end)
    ours, _ = run(q[:, part], k, v, start[:, part], end[:, part])
    np.testing.assert_allclose(ours, whole[:, part], atol=1e-6)


def test_the_empty_interval_gives_exactly_zero_and_no_gradient():
    run = functools.partial(interval_attention, blocks=(128, 128), interpret=True)
    check_empty_intervals(run, *draw(*[(1, 256, 2, 16)] * 3))


def test_blocks_that_nobody_sees_are_not_touched():
    run = functools.partial(interval_attention, blocks=(128, 128), interpret=True)
    check_blocks_unseen(run, *draw(*[(1, 384, 2, 16)] * 4))


def test_bfloat16_rounds_what_the_reference_rounds():
    kv = (2, 384, 2, 64)
    q, k, v = draw((2, 384, 4, 64), kv, kv, dtype=jnp.bfloat16)
    check_rounded(*both(q, k, v, *packed_rows(384)))


@pytest.mark.parametrize("saved", [(), ("attention_out", "attention_lse")])
def test_a_policy_can_save_what_the_backward_pass_needs(saved):
    run = functools.partial(interval_attention, interpret=True)
    counts = kernels_of_a_layer(run, *draw((1, 128, 2, 16)), saved)
    expected = [1 if saved else 2, 1, 1]
    assert [counts[f"interval_attention_{name}"] for name in NAMES] == expected


def shape(length, heads=2, head_dim=128, dtype=jnp.bfloat16, batch=1):
    return jax.ShapeDtypeStruct((batch, length, heads, head_dim), dtype)


@pytest.mark.parametrize(
    ("q", "k", "rate", "reason"),
    [
        (shape(64, head_dim=264), shape(64, head_dim=264), 0.0, "at most 256; got 264"),
        (shape(64, dtype=jnp.float16), shape(64, dtype=jnp.float16), 0.0, "float16"),
        (shape(64), shape(64, dtype=jnp.float32), 0.0, "bfloat16, float32"),
        (shape(64), shape(64), 1.0, "below 1; got 1.0"),
        (shape(1 << 19), shape(1 << 19), 0.0, "524288 steps does not fit"),
    ],
)
def test_what_it_cannot_do_is_said(q, k, rate, reason):
    assert reason in refusal(q, k, rate)


def test_what_it_can_do():
    assert refusal(shape(1 << 17), shape(1 << 17)) is None
    assert refusal(shape(1, head_dim=8), shape(100, head_dim=8), 0.1) is None
    assert refusal(shape(2048, dtype=jnp.float32), shape(2048, dtype=jnp.float32)) is None


def test_long_rows_have_wider_blocks_of_keys_where_they_fit():
    assert block_sizes(shape(512), shape(512)) == (512, 512)
    assert block_sizes(shape(8192), shape(8192)) == (512, 1024)
    assert block_sizes(shape(1024), shape(8192)) == (512, 1024)
    wide = shape(8192, head_dim=256, dtype=jnp.float32)
    assert block_sizes(wide, wide) == (512, 512)
