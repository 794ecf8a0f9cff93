"""The GPU kernels, interpreted on CPU, against the dense reference; and lowered for CUDA."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from glm_jax.batch import prefix_bounds
from glm_jax.kernels.gpu_interval_attention import interval_attention, refusal, tilings
from glm_jax.models.attention_call import make_call
from glm_jax.models.attention_xla import HIDDEN, dense

NAMES = [f"interval_attention_gpu_{x}" for x in ("forward", "query_gradient", "key_gradient")]
H100 = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")


def draw(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def packed_rows(length):
    """Two rows: three texts and padding behind them; one text, all of it a prefix but the end."""
    start, end = np.zeros((2, length), np.int32), np.zeros((2, length), np.int32)
    at = 0
    for size, prefix in ((length // 3, length // 5), (length // 4, 0), (length // 8, length // 8)):
        first, last = prefix_bounds(prefix, size)
        start[0, at : at + size], end[0, at : at + size] = first + at, last + at
        at += size
    start[1], end[1] = prefix_bounds(length * 3 // 4, length)
    return start, end


def both(q, k, v, start, end, *, interpret=True):
    """(out, lse, dq, dk, dv) of the kernels and of the reference, for random cotangents."""
    scale = 1.3 * q.shape[-1] ** -0.5
    d_out, d_lse = draw(q.shape, q.shape[:3])
    # The lse of a query without keys is a constant.
    cotangents = d_out.astype(q.dtype), d_lse * (start < end)[..., None]
    kernel = functools.partial(interval_attention, scale=scale, interpret=interpret)

    def reference(*arguments):
        return dense(make_call(*arguments, scale=scale))

    @functools.partial(jax.jit, static_argnums=0)
    def results(run, q, k, v, start, end, cotangents):
        outputs, gradient = jax.vjp(lambda *qkv: run(*qkv, start, end), q, k, v)
        return (*outputs, *gradient(cotangents))

    arguments = (q, k, v, start, end, cotangents)
    return results(kernel, *arguments), results(reference, *arguments)


def check(ours, expected):
    for name, one, other in zip(("out", "lse"), ours[:2], expected[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)
    for name, one, other in zip(("dq", "dk", "dv"), ours[2:], expected[2:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("num_kv_heads", "head_dim"), [(4, 64), (2, 128), (1, 32)])
def test_packed_rows_with_padding(num_kv_heads, head_dim):
    kv = (2, 256, num_kv_heads, head_dim)
    q, k, v = draw((2, 256, 4, head_dim), kv, kv)
    check(*both(q, k, v, *packed_rows(256)))


@pytest.mark.parametrize(("length", "size"), [(1, 300), (130, 200), (300, 7)])
def test_any_lengths_of_queries_and_keys(length, size):
    q, k, v = draw((2, length, 2, 32), (2, size, 2, 32), (2, size, 2, 32))
    rng = np.random.default_rng(1)
    start, end = np.sort(rng.integers(0, size + 1, (2, 2, length)), axis=0).astype(np.int32)
    start[:, ::3], end[:, ::3] = 0, size
    end[:, 1::5] = start[:, 1::5]
    # Behind the last key there is nothing to see, padding neither.
    end[end == size] += 9
    check(*both(q, k, v, start, end))


def test_the_empty_interval_gives_exactly_zero_and_no_gradient():
    # Scores large enough to overflow an exp that nothing holds back.
    q, k, v = draw((1, 256, 2, 32), (1, 256, 2, 32), (1, 256, 2, 32))
    start, end = np.full((1, 256), 40, np.int32), np.full((1, 256), 200, np.int32)
    empty = np.r_[3:9, 130:256]
    end[:, empty] = 17

    def run(q, k, v):
        return interval_attention(q * 1e4, k, v, start, end, interpret=True)

    out, lse = map(np.asarray, run(q, k, v))
    assert (out[:, empty] == 0).all()
    assert (lse[:, empty] == np.float32(HIDDEN)).all()
    assert (np.delete(out, empty, axis=1) != 0).all()

    def loss(q, k, v):
        return jnp.sum((run(q, k, v)[0][:, empty] + 1.0) ** 2)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
        assert (np.asarray(gradient) == 0).all()


def test_blocks_that_nobody_sees_are_not_touched():
    """A product with not-a-number would show, even under a mask."""
    q, k, v, d_out = draw(*[(1, 256, 2, 32)] * 4)
    start, end = np.zeros((1, 256), np.int32), np.full((1, 256), 128, np.int32)
    k, v = (x.at[:, 128:].set(jnp.nan) for x in (k, v))

    @jax.jit
    def results(q, k, v, d_out):
        run = lambda *qkv: interval_attention(*qkv, start, end, interpret=True)[0]  # noqa: E731
        out, gradient = jax.vjp(run, q, k, v)
        return out, *gradient(d_out)

    out, dq, dk, dv = map(np.asarray, results(q, k, v, d_out))
    assert np.isfinite(out).all()
    assert np.isfinite(dq).all()
    for x in (dk, dv):
        assert np.isfinite(x).all()
        assert (x[:, 128:] == 0).all()


def test_bfloat16_rounds_what_the_reference_rounds():
    kv = (2, 384, 2, 64)
    q, k, v = draw((2, 384, 4, 64), kv, kv, dtype=jnp.bfloat16)
    ours, expected = both(q, k, v, *packed_rows(384))
    assert [x.dtype for x in ours] == [x.dtype for x in expected]
    for one, other in zip(ours, expected, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())
        assert np.abs(one - other).mean() < 2e-3 * np.abs(other).max()


def kernels_called(jaxpr):
    """How often each kernel stands in a program, by its name."""
    counts = collections.Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            counts[str(equation.params["name"])] += 1
        else:
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
            ):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    counts += kernels_called(inner)
    return counts


@pytest.mark.parametrize("saved", [(), ("attention_out", "attention_lse")])
def test_a_policy_can_save_what_the_backward_pass_needs(saved):
    (x,) = draw((1, 128, 2, 32))
    start, end = np.zeros((1, 128), np.int32), np.full((1, 128), 128, np.int32)

    def layer(x):
        return interval_attention(jnp.sin(x), jnp.cos(x), x, start, end, interpret=True)[0]

    layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(*saved))
    program = jax.make_jaxpr(jax.value_and_grad(lambda x: jnp.sum(layer(x) ** 2)))(x)
    counts = kernels_called(program.jaxpr)
    assert [counts[name] for name in NAMES] == [1 if saved else 2, 1, 1]


@pytest.mark.parametrize(("head_dim", "dtype"), [(128, jnp.bfloat16), (64, jnp.float32)])
def test_it_is_lowered_for_cuda(head_dim, dtype):
    """Triton's own checks run here; no GPU is needed."""
    q = jax.ShapeDtypeStruct((2, 1000, 8, head_dim), dtype)
    k = jax.ShapeDtypeStruct((2, 900, 2, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((2, 1000), jnp.int32)
    cotangents = q, jax.ShapeDtypeStruct((2, 1000, 8), jnp.float32)
    mesh = AbstractMesh((1,), ("data",), axis_types=(AxisType.Auto,), abstract_device=H100)

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
    """So that places padded for one kernel are whole blocks of all three."""
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
