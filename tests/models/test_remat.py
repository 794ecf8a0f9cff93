"""Which values each policy saves, by the names a layer gives them."""

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from glm_jax.config import ComputeConfig
from glm_jax.models.remat import POLICIES, rematerialised


def layer(x, _):
    """Named values of sizes that tell them apart, each needed for the gradient."""
    for size, name in enumerate(("query", "key", "value", "attention_out", "attention_lse"), 2):
        wide = checkpoint_name(jnp.sin(jnp.outer(x, jnp.ones(size))), name)
        x = x + jnp.cos(wide).sum(1)
    return x


def saved_sizes(remat):
    """The widths of the named values that the forward pass hands to the backward pass."""
    run = rematerialised(layer, remat, scanned=True)
    residuals = jax.vjp(lambda x: run(x, None), jnp.ones(3))[1]
    shapes = {leaf.shape for leaf in jax.tree.leaves(residuals)}
    return {shape[1] for shape in shapes if len(shape) == 2}


@pytest.mark.parametrize(
    ("remat", "sizes"),
    [
        ("full", set()),
        ("attention", {5, 6}),
        ("qkv", {2, 3, 4}),
        ("qkv_attention", {2, 3, 4, 5, 6}),
        ("dots", {5, 6}),
    ],
)
def test_each_policy_saves_the_values_it_names(remat, sizes):
    assert saved_sizes(remat) == sizes


def test_the_config_knows_all_policies():
    for remat in (*POLICIES, "none"):
        ComputeConfig(remat=remat)
