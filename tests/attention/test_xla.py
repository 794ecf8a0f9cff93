import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.call import make_call
from glm_jax.attention.intervals import HIDDEN
from glm_jax.attention.xla import chunk_size, chunked, dense
from tests.attention.against_dense import draw, results


def inputs(length=40, size=30):
    q, k, v = draw((2, length, 4, 8), (2, size, 2, 8), (2, size, 2, 8))
    rng = np.random.default_rng(1)
    start, end = np.sort(rng.integers(0, size + 1, (2, 2, length)), axis=0).astype(np.int32)
    end[:, ::7] = start[:, ::7]
    return q, k, v, start, end


def results_of_calls(run, *arguments, **options):
    return results(lambda *a: run(make_call(*a, scale=0.3, **options)), *arguments)


def test_the_log_sum_exp_is_that_of_the_scores_seen():
    q, k, v, start, end = inputs()
    _, lse, *_ = results_of_calls(dense, q, k, v, start, end)
    scores = 0.3 * np.einsum("btngh,bsnh->bngts", q.reshape(2, 40, 2, 2, 8), k)
    scores = np.moveaxis(scores.reshape(2, 4, 40, 30), 1, 2)
    keys = np.arange(30)
    seen = ((start[..., None] <= keys) & (keys < end[..., None]))[:, :, None]
    with np.errstate(divide="ignore"):
        expected = np.log(np.sum(np.exp(scores) * seen, axis=-1))
    sees = np.broadcast_to(seen.any(-1), lse.shape)
    np.testing.assert_allclose(np.asarray(lse)[sees], expected[sees], atol=2e-6)
    assert (np.asarray(lse)[~sees] == np.float32(HIDDEN)).all()


def test_the_gradient_of_the_log_sum_exp_is_the_softmax():
    q, k, v, start, end = inputs()

    def lse(q):
        return jnp.sum(dense(make_call(q, k, v, start, end, scale=1.0))[1])

    def mean_key(q):
        return dense(make_call(q, k, k, start, end, scale=1.0))[0]

    np.testing.assert_allclose(jax.grad(lse)(q), mean_key(q), atol=2e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [10, 16, 64])
def test_chunks_are_the_dense_attention_dropout_included(chunk, rate):
    arguments = inputs()
    options = {"dropout_rate": rate, "dropout_key": jax.random.key(2)}
    ours = results_of_calls(functools.partial(chunked, chunk=chunk), *arguments, **options)
    expected = results_of_calls(dense, *arguments, **options)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=2e-6)


def test_chunks_never_hold_all_scores():
    q, k, v = (jax.ShapeDtypeStruct((1, 4096, 2, 8), jnp.float32),) * 3
    bounds = jax.ShapeDtypeStruct((1, 4096), jnp.int32)

    def loss(run):
        def total(q, k, v, start, end):
            return jnp.sum(run(make_call(q, k, v, start, end, scale=1.0))[0])

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))

    def temporary(run):
        program = loss(run).lower(q, k, v, bounds, bounds).compile()
        return program.memory_analysis().temp_size_in_bytes

    scores = 2 * 4096 * 4096 * 4
    assert temporary(dense) > scores
    assert temporary(chunked) < scores / 2


def test_chunks_shrink_as_rows_grow():
    assert [chunk_size(1, 32, size) for size in (2048, 8192, 32768, 131072)] == [512, 512, 128, 32]
    assert chunk_size(64, 64, 1 << 20) == 8
