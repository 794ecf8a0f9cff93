import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.config import CROSS_ENTROPIES, ComputeConfig, MeshConfig
from glm_jax.models.transformer import Transformer
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import abstract_state, create_state
from glm_jax.training.step import make_train_step


@pytest.fixture
def gradients_by(config, batch):
    """method -> what one step with it makes of the parameters, and its metrics."""

    def run(method, **train):
        still = dataclasses.replace(config.model, dropout_rate=0.0, attention_dropout_rate=0.0)
        settings = dataclasses.replace(config.train, cross_entropy=method, **train)
        changed = dataclasses.replace(config, model=still, train=settings)
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        state, metrics = make_train_step(changed, mesh)(create_state(changed, mesh), batch)
        return to_paths(state.opt_state[0].mu), metrics

    return run


@pytest.mark.parametrize("method", [m for m in CROSS_ENTROPIES if m not in (None, "plain")])
@pytest.mark.parametrize("chunk", [None, 8])
def test_every_method_gives_the_loss_and_the_gradient_of_all_logits(gradients_by, method, chunk):
    expected, their_metrics = gradients_by("plain")
    found, metrics = gradients_by(method, loss_chunk=chunk)
    for path, moment in expected.items():
        limit = 1e-5 * float(np.abs(moment).max()) + 1e-8
        np.testing.assert_allclose(found[path], moment, atol=limit, err_msg=path)
    for name, value in their_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("method", "dropout", "early"),
    [
        ("gradient_in_forward", 0.0, True),
        ("gradient_in_forward", 0.1, False),
        ("plain", 0.0, False),
    ],
)
def test_the_last_layer_ends_at_targets_where_nothing_forbids(
    config, batch, monkeypatch, method, dropout, early
):
    asked = []
    real = Transformer.finisher
    monkeypatch.setattr(Transformer, "finisher", lambda self: asked.append(1) or real(self))
    model = dataclasses.replace(config.model, dropout_rate=dropout, attention_dropout_rate=0.0)
    settings = dataclasses.replace(config.train, cross_entropy=method)
    changed = dataclasses.replace(
        config, model=model, train=settings, compute=ComputeConfig(scan_layers=False)
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    make_train_step(changed, mesh).lower(abstract_state(changed, mesh), batch)
    assert bool(asked) == early
