"""Layers of one number each, so that what a stack computes can be done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glm_jax.config import ComputeConfig
from glm_jax.models.stack import last_layer, layer_keys, make_layers, of_layer, run_layers

KEY = jax.random.key(3)
LISTED, STACKED = ComputeConfig(scan_layers=False), ComputeConfig(scan_layers=True)
FORMS = pytest.mark.parametrize("compute", [LISTED, STACKED], ids=["listed", "stacked"])


class Drawn(nnx.Module):
    """A layer of one drawn number."""

    def __init__(self, key):
        self.factor = nnx.Param(jax.random.uniform(key, (1,)))


def factors(*values):
    """Layers of these numbers in both forms."""
    listed = make_layers(Drawn, len(values), LISTED, key=KEY)
    for layer, value in zip(listed, values, strict=True):
        layer.factor[...] = jnp.array([value])
    stacked = make_layers(Drawn, len(values), STACKED, key=KEY)
    stacked.factor[...] = jnp.array(values)[:, None]
    return {LISTED: listed, STACKED: stacked}


def times_and_add(layer, x, key, own):
    del key
    return x * layer.factor[...] + own, None


def test_layer_i_draws_from_the_key_folded_with_i():
    expected = [jax.random.uniform(jax.random.fold_in(KEY, i), (1,)) for i in range(3)]
    listed = make_layers(Drawn, 3, LISTED, key=KEY)
    assert [float(layer.factor[0]) for layer in listed] == [float(x[0]) for x in expected]
    stacked = make_layers(Drawn, 3, STACKED, key=KEY)
    np.testing.assert_array_equal(stacked.factor[...], jnp.stack(expected))


@FORMS
def test_each_layer_is_given_what_the_one_before_made_and_its_own(compute):
    """((1 * 2 + 10) * 3 + 20) * 4 + 30 = 254"""
    layers, own = factors(2.0, 3.0, 4.0)[compute], jnp.array([10.0, 20.0, 30.0])
    found = run_layers(layers, times_and_add, jnp.ones(1), (None, own), compute)
    np.testing.assert_array_equal(found, [254.0])


def test_the_first_of_listed_layers_alone():
    layers, own = factors(2.0, 3.0, 4.0)[LISTED], jnp.array([10.0, 20.0, 30.0])
    for first, expected in ((0, 1.0), (1, 12.0), (2, 56.0)):
        found = run_layers(layers, times_and_add, jnp.ones(1), (None, own), LISTED, first)
        np.testing.assert_array_equal(found, [expected])


@FORMS
def test_each_layer_has_its_key(compute):
    def add_drawn(layer, x, key, own):
        del layer, own
        return x + jax.random.uniform(key, (1,)), None

    keys = layer_keys(KEY, 3)
    found = run_layers(
        factors(1.0, 1.0, 1.0)[compute], add_drawn, jnp.zeros(1), (keys, None), compute
    )
    drawn = sum(float(jax.random.uniform(jax.random.fold_in(KEY, i), (1,))[0]) for i in range(3))
    np.testing.assert_allclose(found, [drawn], rtol=1e-6)
    assert layer_keys(None, 3) is None


def test_the_last_of_listed_layers():
    layers = factors(2.0, 3.0)
    assert float(last_layer(layers[LISTED], LISTED).factor[0]) == 3.0
    with pytest.raises(ValueError, match="unstack_layers"):
        last_layer(layers[STACKED], STACKED)


def test_what_one_layer_has_of_all():
    keys, values = np.arange(12).reshape(3, 4), np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(of_layer((keys, values), 2)[1], [4, 5])
    assert of_layer(None, 2) is None
