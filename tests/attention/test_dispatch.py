import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax import errors
from glm_jax.attention import dispatch as attention_module
from glm_jax.attention.dispatch import BACKENDS, Backend, attention
from glm_jax.attention.gpu.interval_attention import run_gpu
from glm_jax.attention.tpu.interval_attention import run_tpu
from glm_jax.attention.xla import chunked, dense
from glm_jax.batch import prefix_bounds
from glm_jax.config import ComputeConfig
from tests.attention.against_dense import draw, packed_rows

# Bounds of six queries over eight keys: inside, everything, one key, empty, inverted, behind.
START = np.array([[1, 0, 7, 3, 5, 8]], np.int32)
END = np.array([[4, 8, 8, 3, 2, 8]], np.int32)
EMPTY = np.array([3, 4, 5])


def reference(q, k, v, start, end, scale=None):
    """Query by query, key by key, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = np.zeros(q.shape)
    group = q.shape[2] // k.shape[2]
    for b, t, n in np.ndindex(q.shape[:3]):
        keys = range(start[b, t], end[b, t])
        if keys:
            scores = [scale * q[b, t, n] @ k[b, s, n // group] for s in keys]
            weights = np.exp(np.array(scores) - max(scores))
            values = [v[b, s, n // group] for s in keys]
            out[b, t, n] = weights @ values / weights.sum()
    return out


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("scale", [None, 2.0])
def test_each_query_sees_its_interval(num_kv_heads, scale):
    q, k, v = draw((1, 6, 4, 5), (1, 8, num_kv_heads, 5), (1, 8, num_kv_heads, 5))
    ours = attention(q, k, v, START, END, scale=scale)
    np.testing.assert_allclose(ours, reference(q, k, v, START, END, scale), atol=1e-6)


def test_rows_of_a_batch_have_their_own_bounds():
    q, k, v = draw((3, 4, 2, 4), (3, 4, 2, 4), (3, 4, 2, 4))
    start, end = (np.stack(x) for x in zip(*(prefix_bounds(p, 4) for p in (0, 2, 4)), strict=True))
    ours = attention(q, k, v, start, end)
    np.testing.assert_allclose(ours, reference(q, k, v, start, end), atol=1e-6)
    # Causal: the first query sees only itself.
    np.testing.assert_allclose(ours[0, 0], v[0, 0], atol=1e-6)


def test_the_empty_interval_gives_exactly_zero():
    q, k, v = draw((1, 6, 2, 4), (1, 8, 2, 4), (1, 8, 2, 4))
    ours = np.asarray(attention(q, k, v, START, END))
    assert (ours[:, EMPTY] == 0).all()
    assert (np.delete(ours, EMPTY, axis=1) != 0).all()


def test_gradients_are_those_of_finite_differences():
    shapes = (1, 6, 2, 3), (1, 8, 1, 3), (1, 8, 1, 3), (1, 6, 2, 3)
    q, k, v, weights = map(np.asarray, draw(*shapes))
    inputs = [q, k, v]
    ours = jax.grad(lambda *x: jnp.sum(attention(*x, START, END) * weights), argnums=(0, 1, 2))(
        *inputs
    )
    for which, gradient in enumerate(ours):
        expected = np.zeros(inputs[which].shape)
        for index in np.ndindex(expected.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [np.asarray(x, np.float64).copy() for x in inputs]
                moved[which][index] += step
                ends.append(np.sum(reference(*moved, START, END) * weights))
            expected[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_the_empty_interval_passes_no_gradient():
    q, k, v = draw((1, 6, 2, 4), (1, 8, 2, 4), (1, 8, 2, 4))
    # Scores large enough to overflow an exp that nothing holds back.
    q = q * 1e4

    def loss(q, k, v):
        return jnp.sum(attention(q, k, v, START, END)[:, EMPTY] ** 2 + 1.0)

    for gradient in jax.grad(loss, argnums=(0, 1, 2))(q, k, v):
        assert (np.asarray(gradient) == 0).all()


def test_keys_outside_every_interval_change_nothing():
    q, k, v = draw((1, 2, 1, 4), (1, 8, 1, 4), (1, 8, 1, 4))
    start, end = np.array([[1, 2]], np.int32), np.array([[3, 4]], np.int32)
    before = np.asarray(attention(q, k, v, start, end))
    k, v = k.at[:, 4:].set(1e4), v.at[:, 4:].set(-1e4)
    np.testing.assert_array_equal(attention(q, k, v, start, end), before)


def test_softmax_is_float32_under_bfloat16():
    size = 301  # its sum of ones is no bfloat16
    q = jnp.zeros((1, 1, 1, 4), jnp.bfloat16)
    ones = jnp.ones((1, size, 1, 4), jnp.bfloat16)
    bounds = np.zeros((1, 1), np.int32), np.full((1, 1), size, np.int32)
    y = attention(q, ones, ones, *bounds)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32), 1.0)


def test_scores_are_float32_under_bfloat16():
    # 64 and 64.25 are one number in bfloat16.
    q = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    k = jnp.array([[64, 0], [64, 0.25]], jnp.bfloat16).reshape(1, 2, 1, 2)
    v = jnp.array([[0, 0], [1, 1]], jnp.bfloat16).reshape(1, 2, 1, 2)
    bounds = np.zeros((1, 1), np.int32), np.full((1, 1), 2, np.int32)
    y = np.asarray(attention(q, k, v, *bounds, scale=1.0), np.float32)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-0.25)), rtol=4e-3)


def test_dropout_is_decided_by_its_key_and_keeps_the_mean():
    q, k, v = draw((1, 64, 4, 2), (1, 64, 4, 2), (1, 64, 4, 2))
    v = np.abs(v)
    bounds = np.zeros((1, 64), np.int32), np.full((1, 64), 64, np.int32)

    def run(key, rate=0.25):
        key = None if key is None else jax.random.key(key)
        return np.asarray(attention(q, k, v, *bounds, dropout_rate=rate, dropout_key=key))

    np.testing.assert_array_equal(run(0), run(0))
    assert (run(0) != run(1)).any()
    np.testing.assert_array_equal(run(None), run(0, rate=0.0))
    mean = np.mean([run(key) for key in range(40)], axis=0)
    # A standard error of about 1 %.
    np.testing.assert_allclose(mean, run(None), rtol=0.12)


def test_an_unknown_backend_is_told_what_there_is(monkeypatch):
    q, k, v = draw((1, 6, 2, 4), (1, 8, 2, 4), (1, 8, 2, 4))
    refusing = Backend(run=dense, refuses=lambda call: "needs a TPU")
    monkeypatch.setitem(BACKENDS, "pallas", refusing)
    with pytest.raises(ValueError, match=r"'flash'.*xla: works here; pallas: needs a TPU"):
        attention(q, k, v, START, END, backend="flash")
    with pytest.raises(ValueError, match="'pallas'"):
        attention(q, k, v, START, END, backend="pallas")


def test_auto_takes_the_first_that_does_not_refuse(monkeypatch):
    q, k, v = draw((1, 6, 2, 4), (1, 8, 2, 4), (1, 8, 2, 4))
    xla = BACKENDS["xla"]
    monkeypatch.delitem(BACKENDS, "xla")
    monkeypatch.setitem(BACKENDS, "pallas", Backend(run=dense, refuses=lambda call: "no"))
    with pytest.raises(ValueError, match="pallas: no"):
        attention(q, k, v, START, END)
    monkeypatch.setitem(BACKENDS, "xla", xla)
    attention(q, k, v, START, END)


def test_auto_passes_by_what_declines_but_a_name_is_obeyed(monkeypatch):
    q, k, v = draw((1, 6, 2, 4), (1, 8, 2, 4), (1, 8, 2, 4))
    seen = []

    def run(call):
        seen.append("mine")
        return BACKENDS["xla"].run(call)

    never, always = (lambda call: None), (lambda call: "rather not")
    monkeypatch.setitem(BACKENDS, "xla_chunked", Backend(run, never, always))
    attention(q, k, v, START, END)
    assert not seen
    attention(q, k, v, START, END, backend="xla_chunked")
    assert seen == ["mine"]


def chosen(monkeypatch, length, size):
    """The name of the backend that "auto" takes on CPU."""
    names = []
    for name, backend in list(BACKENDS.items()):

        def run(call, name=name):
            names.append(name)
            return call.q, jnp.zeros(call.q.shape[:3])

        monkeypatch.setitem(BACKENDS, name, dataclasses.replace(backend, run=run))
    q, k = jnp.zeros((1, length, 1, 1)), jnp.zeros((1, size, 1, 1))
    bounds = jnp.zeros((1, length), jnp.int32)
    attention(q, k, k, bounds, bounds)
    return names


@pytest.mark.parametrize(
    ("length", "size", "name"),
    [(512, 512, "xla"), (2048, 2048, "xla"), (2049, 2048, "xla_chunked"), (1, 1 << 20, "xla")],
)
def test_auto_on_cpu_goes_by_length(monkeypatch, length, size, name):
    assert list(BACKENDS) == ["pallas_tpu", "pallas_gpu", "tokamax", "xla_chunked", "xla"]
    assert chosen(monkeypatch, length, size) == [name]


def test_auto_says_once_why_it_leaves_the_kernels_of_a_device(monkeypatch, caplog):
    monkeypatch.setattr(errors, "_SAID", set())
    monkeypatch.setattr(attention_module, "target_platform", lambda: "tpu")
    refusing = Backend(dense, lambda call: "heads of 5", platforms=("tpu",))
    serving = Backend(dense, lambda call: None)
    monkeypatch.setattr(attention_module, "BACKENDS", {"kernel": refusing, "xla": serving})
    q, k, v = draw((1, 6, 4, 5), (1, 8, 4, 5), (1, 8, 4, 5))
    for _ in range(2):
        attention(q, k, v, START, END)
    assert caplog.messages == ["attention runs as 'xla', slower than a kernel: kernel: heads of 5"]
    # By name it is what was asked for; few queries are none for a kernel; a CPU has none.
    errors._SAID.clear()
    attention(q, k, v, START, END, backend="xla")
    few = dataclasses.replace(refusing, declines=lambda call: "few")
    monkeypatch.setitem(attention_module.BACKENDS, "kernel", few)
    attention(q, k, v, START, END)
    monkeypatch.setattr(attention_module, "target_platform", lambda: "cpu")
    attention(q, k, v, START, END)
    assert len(caplog.messages) == 1


def test_config_knows_the_backends():
    for name in ("auto", *BACKENDS):
        assert ComputeConfig(attention_backend=name).attention_backend == name
    with pytest.raises(ValueError, match="did you mean 'xla'"):
        ComputeConfig(attention_backend="xlaa")


def with_prefix_in_front(q, k, v, start, end, prefix):
    """The reference with the prefix as keys of its own: [P + S] keys, seen in two intervals."""
    length = prefix[0].shape[-3]
    shape = (len(q), *prefix[0].shape[-3:])
    k, v = (
        np.concatenate([np.broadcast_to(x, shape), y], axis=1)
        for x, y in zip(prefix, (k, v), strict=True)
    )
    out = np.zeros(q.shape)
    for b, t, n in np.ndindex(q.shape[:3]):
        keys = [*range(length), *range(length + start[b, t], length + end[b, t])]
        head = n // (q.shape[2] // k.shape[2])
        scores = np.array([q[b, t, n] @ k[b, s, head] * q.shape[-1] ** -0.5 for s in keys])
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights @ np.array([v[b, s, head] for s in keys]) / weights.sum()
    return out


@pytest.mark.parametrize("backend", ["xla", "xla_chunked"])
@pytest.mark.parametrize("batched", [False, True])
def test_every_query_sees_the_prefix(backend, batched):
    rows = (2,) if batched else ()
    q, k, v, *prefix = draw((2, 6, 4, 5), *[(2, 8, 2, 5)] * 2, *[(*rows, 3, 2, 5)] * 2)
    start, end = np.repeat(START, 2, 0), np.repeat(END, 2, 0)
    ours = attention(q, k, v, start, end, prefix=tuple(prefix), backend=backend)
    expected = with_prefix_in_front(q, k, v, start, end, prefix)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert (np.asarray(ours)[:, EMPTY] != 0).all()


def test_a_prefix_draws_a_mask_of_its_own():
    """A prefix that is the keys once more changes nothing, unless other weights are dropped."""
    q, k, v = draw((2, 6, 4, 5), (2, 8, 2, 5), (2, 8, 2, 5))
    start = np.zeros((2, 6), np.int32)

    def run(prefix, rate):
        options = {"dropout_rate": rate, "dropout_key": jax.random.key(3)}
        return np.asarray(attention(q, k, v, start, start + 8, prefix=prefix, **options))

    np.testing.assert_allclose(run((k, v), 0.0), run(None, 0.0), atol=1e-6)
    once, twice = run(None, 0.5), run((k, v), 0.5)
    # Half of each: what is left is the result under the other mask.
    other = 2 * twice - once
    assert (np.abs(other - once).max(axis=-1) > 0.1).mean() > 0.9


def test_prefix_gradients_are_those_of_longer_keys():
    """Where every query sees all keys, a prefix is nothing but more keys."""
    q, k, v, pk, pv, weights = draw(
        (2, 6, 4, 5), *[(2, 8, 2, 5)] * 2, *[(2, 3, 2, 5)] * 2, (2, 6, 4, 5)
    )
    start = np.zeros((2, 6), np.int32)

    def apart(q, k, v, pk, pv):
        return jnp.sum(attention(q, k, v, start, start + 8, prefix=(pk, pv)) * weights)

    def together(q, k, v, pk, pv):
        k, v = jnp.concatenate([pk, k], 1), jnp.concatenate([pv, v], 1)
        return jnp.sum(attention(q, k, v, start, start + 11) * weights)

    every = (0, 1, 2, 3, 4)
    ours = jax.grad(apart, argnums=every)(q, k, v, pk, pv)
    for one, other in zip(ours, jax.grad(together, argnums=every)(q, k, v, pk, pv), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_under_the_empty_interval_all_gradient_goes_to_the_prefix():
    q, k, v, pk, pv = draw((1, 6, 2, 4), *[(1, 8, 2, 4)] * 2, *[(3, 2, 4)] * 2)

    def loss(q, k, v, pk, pv):
        return jnp.sum(attention(q, k, v, START, END, prefix=(pk, pv))[:, EMPTY] ** 2)

    _, dk, dv, dpk, dpv = jax.grad(loss, argnums=(0, 1, 2, 3, 4))(q, k, v, pk, pv)
    assert not np.asarray(dk).any()
    assert not np.asarray(dv).any()
    assert np.asarray(dpk).all()
    assert np.asarray(dpv).all()


# All that merges, the kernels interpreted.
MERGING = {
    "xla": dense,
    "xla_chunked": functools.partial(chunked, chunk=64),
    "pallas_tpu": functools.partial(run_tpu, interpret=True),
    "pallas_gpu": functools.partial(run_gpu, interpret=True),
}


def masked_softmax(q, k, v, start, end, prefix):
    """Attention in one softmax over the keys of the prefix, which all see, and of the interval."""
    pk, pv = (jnp.broadcast_to(x, (len(q), *x.shape[-3:])) for x in prefix)
    share = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(jnp.concatenate(x, 1), share, 2) for x in ((pk, k), (pv, v)))
    slots = jnp.arange(k.shape[1]) - pk.shape[1]
    seen = (slots < 0) | ((start[..., None] <= slots) & (slots < end[..., None]))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


def with_gradients(run, arguments, cotangent):
    out, gradient = jax.vjp(run, *arguments)
    return out, *gradient(cotangent.astype(out.dtype))


@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize("backend", MERGING)
def test_a_prefix_and_its_gradient_in_every_backend(monkeypatch, backend, dtype):
    """Packed rows with empty intervals, two heads of keys for four of queries."""
    monkeypatch.setitem(BACKENDS, backend, Backend(MERGING[backend], lambda call: None))
    kv, of_prefix = (2, 130, 2, 32), (3, 2, 32)
    q, k, v, pk, pv, cotangent = draw(
        (2, 130, 4, 32), kv, kv, of_prefix, of_prefix, (2, 130, 4, 32)
    )
    start, end = map(jnp.asarray, packed_rows(130))
    assert (start == end).any()

    def ours(q, k, v, pk, pv):
        return attention(q, k, v, start, end, prefix=(pk, pv), backend=backend)

    def reference(q, k, v, pk, pv):
        return masked_softmax(q, k, v, start, end, (pk, pv))

    arguments = [x.astype(dtype) for x in (q, k, v, pk, pv)]
    found = jax.jit(functools.partial(with_gradients, ours))(arguments, cotangent)
    exact = [x.astype(jnp.float32) for x in arguments]
    expected = jax.jit(functools.partial(with_gradients, reference))(exact, cotangent)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        # Of sums of hundreds of terms for the prefix: relative to the largest.
        scale = np.abs(other).max()
        atol = scale * (1e-5 if dtype == jnp.float32 else 0.02)
        np.testing.assert_allclose(np.asarray(one, np.float32), other, atol=atol, rtol=0)


def test_dropout_beside_a_prefix_is_the_same_in_every_backend(monkeypatch):
    """The kernel for GPUs has none."""
    kv, of_prefix = (2, 130, 2, 32), (3, 2, 32)
    q, k, v, *prefix = draw((2, 130, 4, 32), kv, kv, of_prefix, of_prefix)
    start, end = map(jnp.asarray, packed_rows(130))
    options = {"dropout_rate": 0.4, "dropout_key": jax.random.key(2), "prefix": tuple(prefix)}
    expected = attention(q, k, v, start, end, backend="xla", **options)
    assert np.abs(expected - masked_softmax(q, k, v, start, end, prefix)).max() > 0.1
    for backend in ("xla_chunked", "pallas_tpu"):
        monkeypatch.setitem(BACKENDS, backend, Backend(MERGING[backend], lambda call: None))
        found = attention(q, k, v, start, end, backend=backend, **options)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_heads_must_divide():
    q, k, v = draw((1, 6, 3, 4), (1, 8, 2, 4), (1, 8, 2, 4))
    with pytest.raises(ValueError, match="3 and 2"):
        attention(q, k, v, START, END)
