"""The GPU kernels, interpreted on CPU, against the dense reference; and lowered for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.call import make_call
from glm_jax.attention.gpu.interval_attention import interval_attention, refusal, tilings
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
from tests.meshes import GPU, abstract_mesh

NAMES = [f"interval_attention_gpu_{x}" for x in ("forward", "query_gradient", "key_gradient")]


def both(*arguments, interpret=True):
    """`results` of the kernels and of the reference."""
    scale = 1.3 * arguments[0].shape[-1] ** -0.5

    def reference(*arguments):
        return dense(make_call(*arguments, scale=scale))

    kernel = functools.partial(interval_attention, scale=scale, interpret=interpret)
    return results(kernel, *arguments), results(reference, *arguments)


@pytest.mark.parametrize(("num_kv_heads", "head_dim"), [(4, 64), (2, 128), (1, 32)])
def test_packed_rows_with_padding(num_kv_heads, head_dim):
    kv = (2, 256, num_kv_heads, head_dim)
    q, k, v = draw((2, 256, 4, head_dim), kv, kv)
    check(*both(q, k, v, *packed_rows(256)))


@pytest.mark.parametrize(("length", "size"), [(1, 300), (130, 200), (300, 7)])
def test_any_lengths_of_queries_and_keys(length, size):
    q, k, v = draw((2, length, 2, 32), (2, size, 2, 32), (2, size, 2, 32))
    start, end = any_intervals(length, size)
    # Behind the last key there is nothing to see, padding neither.
    end[end == size] += 9
    check(*both(q, k, v, start, end))


def test_the_empty_interval_gives_exactly_zero_and_no_gradient():
    run = functools.partial(interval_attention, interpret=True)
    check_empty_intervals(run, *draw(*[(1, 256, 2, 32)] * 3))


def test_blocks_that_nobody_sees_are_not_touched():
    run = functools.partial(interval_attention, interpret=True)
    check_blocks_unseen(run, *draw(*[(1, 256, 2, 32)] * 4))


def test_bfloat16_rounds_what_the_reference_rounds():
    kv = (2, 384, 2, 64)
    q, k, v = draw((2, 384, 4, 64), kv, kv, dtype=jnp.bfloat16)
    check_rounded(*both(q, k, v, *packed_rows(384)))


@pytest.mark.parametrize("saved", [(), ("attention_out", "attention_lse")])
def test_a_policy_can_save_what_the_backward_pass_needs(saved):
    run = functools.partial(interval_attention, interpret=True)
    counts = kernels_of_a_layer(run, *draw((1, 128, 2, 32)), saved)
    assert [counts[name] for name in NAMES] == [1 if saved else 2, 1, 1]


@pytest.mark.parametrize(("head_dim", "dtype"), [(128, jnp.bfloat16), (64, jnp.float32)])
def test_it_is_lowered_for_cuda(head_dim, dtype):
    """Triton's own checks run here; no GPU is needed."""
    q = jax.ShapeDtypeStruct((2, 1000, 8, head_dim), dtype)
    k = jax.ShapeDtypeStruct((2, 900, 2, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((2, 1000), jnp.int32)
    cotangents = q, jax.ShapeDtypeStruct((2, 1000, 8), jnp.float32)
    mesh = abstract_mesh(device=GPU)

    def results(q, k, v, start, end, cotangents):
        with jax.sharding.use_abstract_mesh(mesh):
            run = lambda *qkv: interval_attention(*qkv, start, end)  # noqa: E731
            outputs, gradient = jax.vjp(run, q, k, v)
            return outputs, gradient(cotangents)

    traced = jax.jit(results).trace(q, k, k, bounds, bounds, cotangents)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.custom_call @__gpu$xla.gpu.triton") == 3
    # No array of all pairs of a query and a key.
    assert "1024x1000" not in text
    assert "1024x1024" not in text


def shape(head_dim, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct((1, 64, 2, head_dim), dtype)


@pytest.mark.parametrize(
    ("q", "k", "rate", "reason"),
    [
        (shape(80), shape(80), 0.0, "one of [32, 64, 128]; got 80"),
        (shape(64, jnp.float16), shape(64, jnp.float16), 0.0, "float16"),
        (shape(64), shape(64, jnp.float32), 0.0, "bfloat16, float32"),
        (shape(64), shape(64), 0.1, "rate 0.1"),
    ],
)
def test_what_it_cannot_do_is_said(q, k, rate, reason):
    assert reason in refusal(q, k, rate)


def test_what_it_can_do():
    assert refusal(shape(128), shape(128)) is None
    assert refusal(shape(64, jnp.float32), shape(64, jnp.float32)) is None


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_blocks_divide_one_another(head_dim, dtype):
    """So that slots padded for one kernel are whole blocks of all three."""
    for name in ("block_q", "block_k"):
        sizes = {getattr(tiling, name) for tiling in tilings(head_dim, dtype)}
        assert all(max(sizes) % size == 0 for size in sizes)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("num_kv_heads", [1, 8])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_gpu_computes_what_the_reference_does(num_kv_heads, head_dim, dtype):
    """Compiled, not interpreted; products of float32 are rounded as the GPU rounds them."""
    kv = (2, 1000, num_kv_heads, head_dim)
    q, k, v = draw((2, 1000, 8, head_dim), kv, kv, dtype=dtype)
    start, end = packed_rows(1000)
    ours, _ = both(q, k, v, start, end, interpret=False)
    with jax.default_matmul_precision("float32"):
        exact = (x.astype(jnp.float32) for x in (q, k, v))
        _, expected = both(*exact, start, end, interpret=False)
    for name, one, other in zip(("out", "lse", "dq", "dk", "dv"), ours, expected, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other)
        seen = np.broadcast_to((start < end)[..., None], (2, 1000, 8)) if name == "lse" else ...
        one, other = one[seen], other[seen]
        np.testing.assert_allclose(one, other, atol=0.03 * np.abs(other).max(), err_msg=name)
        assert np.abs(one - other).mean() < 4e-3 * np.abs(other).max(), name
    assert (np.asarray(ours[0], np.float32)[start >= end] == 0).all()
