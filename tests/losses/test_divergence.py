"""Estimates of the divergence, by hand."""

import math

import jax.numpy as jnp
import pytest

from glm_jax.losses.divergence import kl_estimates


def test_estimates_of_the_divergence():
    found = kl_estimates(jnp.array([0.0, 0.5, -0.5]))
    assert found["k1"].tolist() == [0.0, 0.5, -0.5]
    assert found["k2"].tolist() == [0.0, 0.125, 0.125]
    wanted = [0.0, math.exp(-0.5) - 0.5, math.exp(0.5) - 1.5]
    assert found["k3"].tolist() == pytest.approx(wanted, abs=1e-7)
