"""Listed parameters of a small model with more than ten layers."""

import jax
import numpy as np
import pytest

from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.models.params import create_params
from glm_jax.models.trees import unstack_layers
from glm_jax.sharding.mesh import make_mesh

# More than ten layers: "10" sorts before "2".
CONFIG = ModelConfig(
    vocab_size=64, num_layers=12, embed_dim=32, num_heads=4, max_positions=16
).resolved(ComputeConfig(scan_layers=False))


STACKED = CONFIG.with_compute(scan_layers=True)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def params(mesh):
    return unstack_layers(create_params(CONFIG, mesh, seed=0))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)
