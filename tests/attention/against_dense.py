"""What tests of all backends share: inputs, and results beside those of the dense reference."""

import collections
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.attention.call import Call, make_call
from glm_jax.attention.intervals import HIDDEN
from glm_jax.batch import prefix_bounds


def draw(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def packed_rows(length):
    """Two rows: three segments and padding; one segment whose prefix is three quarters of it."""
    start, end = np.zeros((2, length), np.int32), np.zeros((2, length), np.int32)
    at = 0
    for size, prefix in ((length // 3, length // 5), (length // 4, 0), (length // 8, length // 8)):
        first, last = prefix_bounds(prefix, size)
        start[0, at : at + size], end[0, at : at + size] = first + at, last + at
        at += size
    start[1], end[1] = prefix_bounds(length * 3 // 4, length)
    return start, end


def any_intervals(length, size):
    """Two rows of random intervals among `size` keys, some with all keys and some empty."""
    rng = np.random.default_rng(1)
    start, end = np.sort(rng.integers(0, size + 1, (2, 2, length)), axis=0).astype(np.int32)
    start[:, ::3], end[:, ::3] = 0, size
    end[:, 1::5] = start[:, 1::5]
    return start, end


def traced_call(arguments, **options) -> Call:
    """The `Call` of shapes, as a program that is traced makes it."""
    calls = []
    jax.eval_shape(lambda *arrays: calls.append(make_call(*arrays, **options)), *arguments)
    return calls[0]


def results(run: Callable, q, k, v, start, end):
    """(out, lse, dq, dk, dv) of run(q, k, v, start, end), for random cotangents."""
    d_out, d_lse = draw(q.shape, q.shape[:3])
    # The lse of a query without keys is a constant.
    cotangents = d_out.astype(q.dtype), d_lse * (start < end)[..., None]

    @jax.jit
    def both(q, k, v, start, end, cotangents):
        outputs, gradient = jax.vjp(lambda *qkv: run(*qkv, start, end), q, k, v)
        return (*outputs, *gradient(cotangents))

    return both(q, k, v, start, end, cotangents)


def check(ours, expected):
    for name, one, other in zip(("out", "lse"), ours[:2], expected[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)
    for name, one, other in zip(("dq", "dk", "dv"), ours[2:], expected[2:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)


def check_rounded(ours, expected):
    """For bfloat16: the largest error is that of its rounding, the mean far below."""
    assert [x.dtype for x in ours] == [x.dtype for x in expected]
    for one, other in zip(ours, expected, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())
        assert np.abs(one - other).mean() < 2e-3 * np.abs(other).max()


def check_blocks_unseen(run: Callable, q, k, v, d_out):
    """No query sees the keys from 128 on, which are NaN: a product with them would show."""
    start = jnp.zeros((1, q.shape[1]), jnp.int32)
    end = start + 128
    k, v = (x.at[:, 128:].set(jnp.nan) for x in (k, v))

    @jax.jit
    def both(q, k, v, d_out):
        out, gradient = jax.vjp(lambda *qkv: run(*qkv, start, end)[0], q, k, v)
        return out, *gradient(d_out)

    out, dq, dk, dv = map(np.asarray, both(q, k, v, d_out))
    assert np.isfinite(out).all()
    assert np.isfinite(dq).all()
    for x in (dk, dv):
        assert np.isfinite(x).all()
        assert (x[:, 128:] == 0).all()


def check_empty_intervals(run: Callable, q, k, v):
    """The queries 3..8 and 130.. see no key: output exactly 0, no gradient, log-sum-exp HIDDEN."""
    start, end = np.full((1, 256), 40, np.int32), np.full((1, 256), 200, np.int32)
    empty = np.r_[3:9, 130:256]
    end[:, empty] = 17

    def large(q, k, v):
        # Scores so large that exp overflows unless the largest one is subtracted.
        return run(q * 1e4, k, v, *map(jnp.asarray, (start, end)))

    out, lse = map(np.asarray, jax.jit(large)(q, k, v))
    assert (out[:, empty] == 0).all()
    assert (lse[:, empty] == np.float32(HIDDEN)).all()
    assert (np.delete(out, empty, axis=1) != 0).all()

    def loss(q, k, v):
        return jnp.sum((large(q, k, v)[0][:, empty] + 1.0) ** 2)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
        assert (np.asarray(gradient) == 0).all()


def kernels_of_a_layer(run: Callable, x, saved) -> collections.Counter:
    """Calls of each kernel in the gradient of a layer, with the residuals named in `saved` kept."""
    start = jnp.zeros(x.shape[:2], jnp.int32)
    end = start + x.shape[1]

    def layer(x):
        return run(jnp.sin(x), jnp.cos(x), x, start, end)[0]

    layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(*saved))
    return _kernels(jax.make_jaxpr(jax.value_and_grad(lambda x: jnp.sum(layer(x) ** 2)))(x).jaxpr)


def _kernels(jaxpr) -> collections.Counter:
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
                    counts += _kernels(inner)
    return counts
