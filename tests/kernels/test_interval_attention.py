"""The kernels, interpreted on CPU, against the dense reference and against what they promise."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import prefix_bounds
from glm_jax.kernels.interval_attention import block_sizes, interval_attention, refusal
from glm_jax.models.attention_call import make_call
from glm_jax.models.attention_xla import HIDDEN, dense
from glm_jax.models.dropout import mask_rows

NAMES = ["forward", "query_gradient", "key_gradient"]


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


def both(q, k, v, start, end, *, rate=0.0, blocks=(128, 128)):
    """(out, lse, dq, dk, dv) of the kernel and of the reference, for random cotangents."""
    key, scale = jax.random.key(5), 1.3 * q.shape[-1] ** -0.5
    d_out, d_lse = draw(q.shape, q.shape[:3])
    # The lse of a query without keys is a constant.
    cotangents = d_out.astype(q.dtype), d_lse * (start < end)[..., None]

    def kernel(q, k, v, start, end):
        shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        rows = mask_rows(key, shape) if rate else None
        options = {"dropout_rate": rate, "mask_rows": rows, "blocks": blocks, "interpret": True}
        return interval_attention(q, k, v, start, end, scale=scale, **options)

    def reference(q, k, v, start, end):
        options = {"dropout_rate": rate, "dropout_key": key if rate else None}
        return dense(make_call(q, k, v, start, end, scale=scale, **options))

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
    rng = np.random.default_rng(1)
    start, end = np.sort(rng.integers(0, size + 1, (2, 2, length)), axis=0).astype(np.int32)
    start[:, ::3], end[:, ::3] = 0, size
    end[:, 1::5] = start[:, 1::5]
    check(*both(q, k, v, start, end, blocks=None, rate=rate))


def test_a_part_of_the_queries_sees_the_keys_of_the_whole_row():
    """As a device has it whose axis splits places: its bounds stay indices into the row."""
    q, k, v = draw((2, 384, 2, 16), (2, 384, 2, 16), (2, 384, 2, 16))
    start, end = packed_rows(384)
    part = slice(100, 290)
    run = jax.jit(functools.partial(interval_attention, blocks=(128, 128), interpret=True))
    whole, _ = run(q, k, v, start, end)
    ours, _ = run(q[:, part], k, v, start[:, part], end[:, part])
    np.testing.assert_allclose(ours, whole[:, part], atol=1e-6)


def test_the_empty_interval_gives_exactly_zero_and_no_gradient():
    # Scores large enough to overflow an exp that nothing holds back.
    q, k, v = draw((1, 256, 2, 16), (1, 256, 2, 16), (1, 256, 2, 16))
    start, end = np.full((1, 256), 40, np.int32), np.full((1, 256), 200, np.int32)
    empty = np.r_[3:9, 130:256]
    end[:, empty] = 17
    (out, lse, *_), _ = both(q * 1e4, k, v, start, end)
    out, lse = np.asarray(out), np.asarray(lse)
    assert (out[:, empty] == 0).all()
    assert (lse[:, empty] == np.float32(HIDDEN)).all()
    assert (np.delete(out, empty, axis=1) != 0).all()

    def loss(q, k, v):
        options = {"blocks": (128, 128), "interpret": True}
        out, _ = interval_attention(q * 1e4, k, v, start, end, **options)
        return jnp.sum((out[:, empty] + 1.0) ** 2)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
        assert (np.asarray(gradient) == 0).all()


def test_blocks_that_nobody_sees_are_not_touched():
    """A product with not-a-number would show, even under a mask."""
    q, k, v, d_out = draw(*[(1, 384, 2, 16)] * 4)
    start, end = np.zeros((1, 384), np.int32), np.full((1, 384), 128, np.int32)
    k, v = (x.at[:, 128:].set(jnp.nan) for x in (k, v))

    def run(q, k, v):
        return interval_attention(q, k, v, start, end, blocks=(128, 128), interpret=True)[0]

    @jax.jit
    def results(q, k, v, d_out):
        out, gradient = jax.vjp(run, q, k, v)
        return out, *gradient(d_out)

    out, dq, dk, dv = results(q, k, v, d_out)
    assert np.isfinite(out).all()
    assert np.isfinite(dq).all()
    for x in (dk, dv):
        assert np.isfinite(x).all()
        assert (np.asarray(x)[:, 128:] == 0).all()


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
    (x,) = draw((1, 128, 2, 16))
    start, end = np.zeros((1, 128), np.int32), np.full((1, 128), 128, np.int32)

    def layer(x):
        return interval_attention(jnp.sin(x), jnp.cos(x), x, start, end, interpret=True)[0]

    layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(*saved))
    program = jax.make_jaxpr(jax.value_and_grad(lambda x: jnp.sum(layer(x) ** 2)))(x)
    counts = kernels_called(program.jaxpr)
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
        (shape(64), shape(64), 1.0, "rate 1.0"),
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
