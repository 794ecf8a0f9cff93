import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.losses.at_targets import target_losses
from glm_jax.losses.by_objective import cross_entropy

ROWS, LENGTH, WIDTH, VOCAB = 4, 13, 8, 17


def plain(hidden, table, targets, scale):
    losses = cross_entropy(hidden @ table.T, targets)
    return (losses * scale).sum(), jnp.where(scale > 0, losses, 0.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("groups", "chunk"), [(1, 256), (1, 5), (2, 4), (4, 13)])
def test_losses_and_gradients_are_those_of_all_logits(share, groups, chunk):
    random = np.random.default_rng(0)
    hidden = random.normal(size=(ROWS, LENGTH, WIDTH)).astype(np.float32)
    table = random.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    targets = random.integers(0, VOCAB, (ROWS, LENGTH))
    scale = random.random((ROWS, LENGTH)).astype(np.float32)
    scale *= random.random((ROWS, LENGTH)) < share
    scale[0, 3:] = 0  # Groups need different numbers of chunks.

    def ours(hidden, table, targets, scale):
        return target_losses(
            lambda x: x @ table.T, hidden, targets, scale, groups=groups, chunk=chunk
        )

    arguments = (hidden, table, targets, scale)
    (loss, losses), gradients = jax.value_and_grad(plain, (0, 1), has_aux=True)(*arguments)
    ours_with_gradient = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))
    for found in (ours_with_gradient(*arguments)[0], jax.jit(ours)(*arguments)):
        np.testing.assert_allclose(found[0], loss, rtol=1e-6)
        np.testing.assert_allclose(found[1], losses, atol=2e-6)
    for found, expected in zip(ours_with_gradient(*arguments)[1], gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_only_slots_with_a_target_are_computed():
    """Elsewhere even hidden states of NaN do no harm."""
    scale = np.zeros((2, 6), np.float32)
    scale[0, 1] = scale[1, 4] = 0.5
    ones = np.ones((2, 6, WIDTH), np.float32)
    hidden = np.where(scale[..., None] > 0, ones, np.nan).astype(np.float32)
    targets = np.zeros((2, 6), np.int32)
    table = np.ones((VOCAB, WIDTH), np.float32)

    def loss(table):
        return target_losses(lambda x: x @ table.T, hidden, targets, scale, chunk=2)[0]

    value, gradient = jax.value_and_grad(loss)(table)
    np.testing.assert_allclose(value, np.log(VOCAB), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_logits_are_never_there_for_more_than_a_chunk():
    hidden = jnp.ones((2, 64, WIDTH))
    table = jnp.ones((VOCAB, WIDTH))
    targets, scale = jnp.zeros((2, 64), jnp.int32), jnp.ones((2, 64))

    def loss(hidden, table):
        return target_losses(lambda x: x @ table.T, hidden, targets, scale, chunk=16)[0]

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, table))
    assert f"f32[1,16,{VOCAB}]" in text
    assert f"128,{VOCAB}]" not in text
    assert f"64,{VOCAB}]" not in text
