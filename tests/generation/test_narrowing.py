import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.generation.narrowing import filter_logits

PROBABILITIES = np.array([0.05, 0.5, 0.2, 0.25])
LOGITS = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))
INFINITY = np.inf


def kept(logits, top_k=0, top_p=1.0):
    return np.flatnonzero(np.isfinite(filter_logits(logits, top_k, top_p))).tolist()


@jax.jit
def by_sorting(logits, top_k, top_p):
    """The same by the definition: of a row's logits in their order, those before which less than
    top_p stands; and all that equal the last of them."""
    ranked = -jnp.sort(-logits, axis=-1)
    number = jnp.where(top_k > 0, top_k, logits.shape[-1])[:, None]
    ranked = jnp.where(jnp.arange(logits.shape[-1]) < number, ranked, -jnp.inf)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    stays = (before < top_p[:, None]) | (top_p[:, None] >= 1)
    stays = stays.at[:, 0].set(True) & (ranked > -jnp.inf)
    lowest = jnp.min(jnp.where(stays, ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= lowest, logits, -jnp.inf)


@pytest.mark.parametrize(
    ("top_k", "ids"), [(0, [0, 1, 2, 3]), (1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k(top_k, ids):
    assert kept(LOGITS, top_k=top_k) == ids


@pytest.mark.parametrize(
    ("top_p", "ids"),
    [
        (1e-45, [1]),  # subnormal: rounded to 0 on some devices
        (1e-6, [1]),
        (0.49, [1]),
        (0.51, [1, 3]),
        (0.76, [1, 2, 3]),
        (0.96, [0, 1, 2, 3]),
    ],
)
def test_top_p_reaches_the_probability(top_p, ids):
    assert kept(LOGITS, top_p=top_p) == ids


def test_top_p_takes_no_id_beyond_what_reaches_it():
    """1/2 is reached by the first id; the others start there, not below."""
    logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    assert jax.nn.softmax(logits).tolist() == [0.5, 0.25, 0.25]
    assert kept(logits, top_p=0.5) == [0]
    assert kept(logits, top_p=np.nextafter(np.float32(0.5), np.float32(1))) == [0, 1, 2]


def test_top_p_is_of_what_top_k_leaves():
    # Of the best two, .5 and .25, the first alone has 2/3.
    assert kept(LOGITS, top_k=2, top_p=0.66) == [1]
    assert kept(LOGITS, top_k=2, top_p=0.67) == [1, 3]


def test_of_equal_logits_as_many_count_as_make_k_and_all_stay():
    # Two of the three fifths make k: the first id has 4 of 4 + 2 + 2 tenths, which is 1/2.
    logits = jnp.log(jnp.array([0.4, 0.2, 0.2, 0.2]))
    assert kept(logits, top_k=3) == [0, 1, 2, 3]
    assert kept(logits, top_k=3, top_p=0.49) == [0]
    assert kept(logits, top_k=3, top_p=0.51) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "logits",
    [
        [2.0, 2.0, 2.0, 2.0],
        [0.0, -0.0, 0.0, -0.0],  # equal, though their bits are not
        [-7.5] * 4,
    ],
)
def test_equal_logits_all_stay(logits):
    logits = jnp.array(logits, jnp.float32)
    for top_k, top_p in [(1, 1.0), (3, 1.0), (0, 1e-6), (0, 0.99), (2, 0.5)]:
        assert kept(logits, top_k, top_p) == [0, 1, 2, 3]


def test_zeros_of_both_signs_are_one_logit():
    logits = jnp.array([1.0, -0.0, 0.0, -1.0])
    assert kept(logits, top_k=2) == [0, 1, 2]
    assert kept(logits, top_k=3) == [0, 1, 2]
    assert kept(logits, top_p=0.6) == [0, 1, 2]  # e^1 of e^1 + 2 + e^-1: .53


def test_banned_ids_stay_banned():
    logits = jnp.array([-INFINITY, 1.0, -INFINITY, 0.0])
    for top_k, top_p in [(0, 1.0), (2, 1.0), (3, 1.0), (9, 1.0), (0, 0.9), (3, 0.9)]:
        assert kept(logits, top_k, top_p) == [1, 3]
    assert kept(logits, 0, 0.7) == kept(logits, 3, 0.7) == [1]  # it has .73
    assert kept(jnp.full(4, -INFINITY), 2, 0.5) == []


def test_top_p_of_one_keeps_every_id_whatever_the_rounding():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=5000) * 8, jnp.float32)
    assert len(kept(logits)) == 5000


def test_filters_work_row_by_row_and_leave_scores_alone():
    logits = jnp.stack([LOGITS, LOGITS[::-1]])
    filtered = np.asarray(filter_logits(logits, 2, 1.0))
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in filtered] == [[1, 3], [0, 2]]
    np.testing.assert_array_equal(filtered[0, [1, 3]], LOGITS[jnp.array([1, 3])])


@pytest.mark.parametrize("steps", [None, 4, 1])
@pytest.mark.parametrize(("rows", "size", "scale"), [(512, 40, 3.0), (64, 1500, 1.5)])
def test_what_stays_is_what_sorting_leaves(rows, size, scale, steps):
    """Of logits in steps of 1/`steps` many are equal; some are banned."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(rows, size)) * scale
    logits = logits if steps is None else np.round(logits * steps) / steps
    logits[random.random((rows, size)) < 0.1] = -INFINITY
    top_k = random.choice([0, 0, 1, 2, 5, 17, size - 1, size, size + 1], rows)
    top_p = random.choice([1.0, 1e-6, 0.9, *random.random(rows)], rows)
    arguments = jnp.float32(logits), jnp.int32(top_k), jnp.float32(top_p)
    found = jax.jit(filter_logits)(*arguments)
    np.testing.assert_array_equal(found, by_sorting(*arguments))
    assert 1 < np.isfinite(found).sum() < np.isfinite(logits).sum()


def test_a_row_is_narrowed_alike_alone_and_in_company():
    """So it is beside rows that take more halvings and rows that take none."""
    random = np.random.default_rng(1)
    logits = jnp.float32(random.normal(size=(6, 300)) * [[1], [40], [0.001], [3], [3], [9]])
    top_k = jnp.int32([0, 20, 7, 0, 0, 299])
    top_p = jnp.float32([0.9, 1.0, 0.3, 1.0, 1e-9, 0.99])
    narrow = jax.jit(filter_logits)
    together = np.asarray(narrow(logits, top_k, top_p))
    for row in range(6):
        alone = narrow(logits[row : row + 1], top_k[row : row + 1], top_p[row : row + 1])
        np.testing.assert_array_equal(together[row], alone[0])
    np.testing.assert_array_equal(together[3], logits[3])
