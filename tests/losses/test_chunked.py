import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.losses.by_objective import cross_entropy
from glm_jax.losses.chunked import chunked_cross_entropy, chunked_losses

ROWS, LENGTH, WIDTH, VOCAB = 4, 12, 8, 17


def draw():
    random = np.random.default_rng(0)
    return (
        random.normal(size=(ROWS, LENGTH, WIDTH)).astype(np.float32),
        random.normal(size=(VOCAB, WIDTH)).astype(np.float32),
        random.integers(0, VOCAB, (ROWS, LENGTH)),
        random.random((ROWS, LENGTH)).astype(np.float32),
    )


def plain(hidden, table, targets, scale):
    losses = cross_entropy(hidden @ table.T, targets)
    return (losses * scale).sum(), losses


@pytest.mark.parametrize(
    ("row_groups", "slot_groups", "chunk"), [(1, 1, 48), (1, 1, 7), (2, 3, 2), (4, 1, 12)]
)
def test_losses_and_gradients_are_those_of_all_logits(row_groups, slot_groups, chunk):
    arguments = draw()

    def ours(hidden, table, targets, scale):
        return chunked_losses(
            lambda x: x @ table.T,
            hidden,
            targets,
            scale,
            row_groups=row_groups,
            slot_groups=slot_groups,
            chunk=chunk,
        )

    expected = jax.value_and_grad(plain, (0, 1), has_aux=True)(*arguments)
    found = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6), found, expected)


@pytest.mark.parametrize(("row_groups", "slot_groups", "chunk"), [(1, 1, 7), (2, 3, 2)])
def test_each_loss_has_a_gradient_of_its_own(row_groups, slot_groups, chunk):
    """Of the sum of squared losses, which no weighted sum gives."""
    hidden, table, targets, _ = draw()

    def ours(hidden, table):
        losses = chunked_cross_entropy(
            lambda x: x @ table.T,
            hidden,
            targets,
            row_groups=row_groups,
            slot_groups=slot_groups,
            chunk=chunk,
        )
        return (losses**2).sum(), losses

    def plainly(hidden, table):
        losses = cross_entropy(hidden @ table.T, targets)
        return (losses**2).sum(), losses

    expected = jax.value_and_grad(plainly, (0, 1), has_aux=True)(hidden, table)
    found = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(hidden, table)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-4), found, expected
    )


def test_logits_are_never_there_for_more_than_a_chunk():
    hidden, table, targets, scale = draw()

    def loss(hidden, table):
        return chunked_losses(lambda x: x @ table.T, hidden, targets, scale, chunk=16)[0]

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, table))
    # 48 slots in three chunks of four slots of every row.
    assert f"f32[{ROWS},1,4,{VOCAB}]" in text
    assert f"f32[{ROWS},1,12,{VOCAB}]" not in text
    assert f"f32[{ROWS},{LENGTH},{VOCAB}]" not in text


def test_chunks_are_equal_and_rows_that_they_do_not_divide_are_padded():
    hidden, table, targets, scale = draw()

    def chunks(chunk):
        jaxpr = jax.make_jaxpr(
            lambda x: chunked_losses(lambda x: x @ table.T, x, targets, scale, chunk=chunk)
        )(hidden)
        scan = next(e for e in jaxpr.eqns if e.primitive.name == "scan")
        return scan.params["length"], max(v.aval.shape[3:4] for v in scan.invars)[0]

    # Four rows of twelve slots: 12, 11, 7, 5 and 1 slots of each row at once, at most.
    assert [chunks(4 * n) for n in (12, 11, 7, 5, 1)] == [(1, 12), (2, 6), (2, 6), (3, 4), (12, 1)]
    assert chunks(1) == (12, 1)
    whole = chunked_losses(lambda x: x @ table.T, hidden, targets, scale)
    padded = chunked_losses(
        lambda x: x @ table.T, hidden[:, :11], targets[:, :11], scale[:, :11], chunk=16
    )
    np.testing.assert_allclose(padded[1], whole[1][:, :11], atol=1e-6)


def test_the_losses_have_no_gradient():
    hidden, table, targets, scale = draw()

    def reported(hidden):
        return jnp.sum(chunked_losses(lambda x: x @ table.T, hidden, targets, scale)[1])

    assert not np.asarray(jax.grad(reported)(hidden)).any()
