"""One training step: gradient of the global batch, clipping, AdamW, metrics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glm_jax.batch import Batch
from glm_jax.config import Config, ModelConfig
from glm_jax.models.params import bind
from glm_jax.models.weights import Master, is_matrix
from glm_jax.sharding import batch_sharding, param_shardings, path_name, replicated
from glm_jax.training.defaults import for_devices
from glm_jax.training.losses import weighted_losses
from glm_jax.training.objective import (
    coefficients,
    hidden_of,
    objective_sums,
    summarize,
)
from glm_jax.training.optimizer import clip, global_norm, learning_rate_schedule
from glm_jax.training.state import TrainState, abstract_state, optimizer_of

Metrics = dict[str, jax.Array]


def make_train_step(config: Config, mesh: Mesh) -> Any:
    """Builds `train_step(state, batch) -> (state, metrics)`, jitted; the state given is used up.

    The batch is the global one, [B, T] with rows over the mesh's data axes. Metrics are scalars:
    `loss`, `loss/NAME` by objective (NaN where the batch has none), `grad_norm` before clipping,
    `learning_rate`. All are of the parameters before the step.
    """
    config = for_devices(config, mesh)
    schedule = learning_rate_schedule(config.optimizer, config.train.num_steps)
    optimizer = optimizer_of(config)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            gradients, sums = _gradients(config, mesh, state, batch)
            norm = global_norm(gradients)
            gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, state.params)
            gradients = clip(gradients, norm, config.optimizer.clip_norm)
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = summarize(sums, config.train.loss_reduction)
        metrics |= {"grad_norm": norm, "learning_rate": schedule(state.step + 1)}
        return TrainState(state.step + 1, params, opt_state), metrics

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )


def make_eval_step(config: Config, mesh: Mesh) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Builds `eval_step(params, batch) -> objective_sums`, jitted; no dropout."""
    config = for_devices(config, mesh)

    def eval_step(params: Any, batch: Batch) -> dict[str, jax.Array]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            model = bind(config.model, params)
            # The weights of the sum do not matter, but a place without one may be left out.
            scale = batch.loss_weights.astype(jnp.float32)
            losses = weighted_losses(
                config.train, mesh, model, hidden_of(model, batch), batch, scale
            )
            return objective_sums(losses[1], batch)

    return jax.jit(eval_step)


def _gradients(config: Config, mesh: Mesh, state: TrainState, batch: Batch) -> Any:
    """The gradient of the global batch's loss and its `objective_sums`, part by part.

    The coefficients of the whole batch are known before the first part, so the parts' gradients
    only add up.
    """
    # A function of seed and step, so that a resumed run draws the same.
    key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
    has_dropout = config.model.dropout_rate > 0 or config.model.attention_dropout_rate > 0

    def loss_of_part(sites: Any, number: Any, part: Batch, scale: jax.Array) -> Any:
        part_key = jax.random.fold_in(key, number) if has_dropout else None
        model = bind(config.model, _at_sites(state.params, sites))
        hidden = hidden_of(model, part, part_key)
        loss, losses = weighted_losses(config.train, mesh, model, hidden, part, scale)
        return loss, objective_sums(losses, part)

    sites = _sites(state.params, config.model, mesh)
    gradient_of_part = jax.grad(loss_of_part, has_aux=True)
    scale = coefficients(batch, config.train.loss_reduction)
    parts = config.train.accumulation_steps
    if parts == 1:
        return gradient_of_part(sites, 0, batch, scale)

    def add_part(total: Any, numbered: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient_of_part(sites, *numbered)), None

    split = jax.tree.map(lambda leaf: _split_rows(leaf, parts, mesh), (batch, scale))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), state.params)
    start = (zeros, objective_sums(jnp.zeros_like(scale[:0]), jax.tree.map(lambda x: x[:0], batch)))
    (gradients, sums), _ = jax.lax.scan(add_part, start, (jnp.arange(parts), *split))
    return gradients, sums


def _sites(params: Any, config: ModelConfig, mesh: Mesh) -> Any:
    """What the gradient is taken of: zeros in compute_dtype for matrices, the other parameters.

    See `glm_jax.models.weights.Master`; where compute_dtype is that of the parameters, they are it.
    """
    dtype = jnp.dtype(config.compute_dtype)

    def site(path: tuple, param: jax.Array, sharding: NamedSharding) -> jax.Array:
        if not is_matrix(path_name(path)) or param.dtype == dtype:
            return param
        return jax.lax.with_sharding_constraint(jnp.zeros(param.shape, dtype), sharding)

    return jax.tree.map_with_path(site, params, param_shardings(params, mesh))


def _at_sites(params: Any, sites: Any) -> Any:
    """The parameters to compute with, so that gradients arrive at `sites`."""
    return jax.tree.map(
        lambda param, site: site if site.dtype == param.dtype else Master(param, site),
        params,
        sites,
    )


def _split_rows(leaf: jax.Array, parts: int, mesh: Mesh) -> jax.Array:
    """[B, T] -> [parts, B / parts, T]; part i is the rows i, i + parts, ..

    Striding leaves every row on its device; the first B / parts rows may all lie on one.
    """
    split = jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)
    spec = PartitionSpec(None, *batch_sharding(mesh).spec)
    return jax.lax.with_sharding_constraint(split, NamedSharding(mesh, spec))
