"""One training step: gradient of the global batch, clipping, AdamW, metrics."""

import functools
from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from glm_jax.batch import DTYPES, Batch, RolloutBatch, ScoredBatch
from glm_jax.config import Config
from glm_jax.losses.registry import Loss, Sums, loss_of
from glm_jax.models.params import bind
from glm_jax.models.seeds import key_of
from glm_jax.models.trees import Params, join_params
from glm_jax.models.weights import Master, is_matrix
from glm_jax.sharding.mesh import batch_sharding, replicated
from glm_jax.sharding.rules import param_spec, path_name
from glm_jax.training.accumulation import (
    Scale,
    Split,
    sum_over_micro_batches,
    sum_over_replicas,
)
from glm_jax.training.defaults import for_devices
from glm_jax.training.optimizer.optimizers import clip, global_norm, learning_rate_schedule
from glm_jax.training.state import abstract_state, optimizer_of
from glm_jax.training.train_state import TrainState

Metrics = dict[str, jax.Array]


@runtime_checkable
class TrainStep(Protocol):
    """A jitted training step."""

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]: ...

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered: ...


# VMEM that a fusion may use, in KiB, by device kind: half of a core's VMEM or more. The default of
# 16 MiB cuts large products into tiles too small to keep the matrix units busy.
_SCOPED_VMEM = {
    "TPU v5 lite": 65536,
    "TPU v5e": 65536,
    "TPU v5": 49152,
    "TPU v5p": 49152,
    "TPU v6 lite": 65536,
    "TPU v6e": 65536,
}

Options = dict[str, str | bool | int]


def make_train_step(config: Config, mesh: Mesh, options: Options | None = None) -> TrainStep:
    """Builds the jitted `train_step(state, batch) -> (state, metrics)`, which donates its state.

    `batch` is the global batch, [B, T], with rows sharded over the mesh's data axes. Metrics are
    scalars: those of the config's loss (`loss`, `loss/NAME` by objective), `grad_norm` before
    clipping, and `learning_rate`. Losses are those of the parameters before the step.

    Args:
      config: of the run.
      mesh: its devices.
      options: of XLA.
    """
    config = for_devices(config, mesh)
    loss = loss_of(config)
    schedule = learning_rate_schedule(config.optimizer, config.train.num_steps)
    optimizer = optimizer_of(config)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            gradients, sums = _gradients(config, mesh, loss, state, batch)
            norm = global_norm(gradients)
            gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, state.trainable)
            gradients = clip(gradients, norm, config.optimizer.clip_norm)
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.trainable)
            trainable = optax.apply_updates(state.trainable, updates)
        metrics = loss.summarize(config.train, sums)
        metrics |= {"grad_norm": norm, "learning_rate": schedule(state.step + 1)}
        return TrainState(state.step + 1, trainable, state.frozen, opt_state), metrics

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        compiler_options=options or None,
    )


def make_eval_step(config: Config, mesh: Mesh) -> Callable[[Params, Batch], Sums]:
    """Builds the jitted `eval_step(params, batch) -> sums of the config's loss`; no dropout."""
    config = for_devices(config, mesh)
    loss = loss_of(config)

    def eval_step(params: Params, batch: Batch) -> Sums:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            model = bind(config.resolved_model, params)
            coefficients = loss.coefficients(config.train, batch)
            return loss.sums(config.train, mesh, model, batch, coefficients, None)[1]

    return jax.jit(eval_step)


def compiler_options(mesh: Mesh) -> Options:
    """XLA's options for the devices of a mesh; empty unless they are TPUs.

    On TPU, products with all-gathered weights are not split into steps that overlap with the
    all-gather (windowed einsum): at these sizes that takes twice as long (docs/performance.md).
    """
    kind = mesh.devices.flat[0].device_kind
    if not kind.startswith("TPU"):
        return {}
    options: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    if kind in _SCOPED_VMEM:
        options["xla_tpu_scoped_vmem_limit_kib"] = str(_SCOPED_VMEM[kind])
    return options


def abstract_batch(config: Config, mesh: Mesh) -> Batch:
    """The global Batch of a config as `jax.ShapeDtypeStruct`s with shardings."""
    shape = (config.data.batch_size, config.data.sequence_length)

    sharding = batch_sharding(mesh)
    fields = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, dtype in DTYPES.items()
    }
    value = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
    if config.has_rollouts:
        reference = value if config.policy.has_reference else None
        of_values = value if config.has_values else None
        return RolloutBatch(
            **fields,
            reference=reference,
            old=value,
            advantages=value,
            old_values=of_values,
            returns=of_values,
        )
    if config.has_reference or config.has_margins:
        return ScoredBatch(
            **fields,
            reference=value if config.has_reference else None,
            margins=value if config.has_margins else None,
        )
    return Batch(**fields)


def compile_train_step(
    config: Config, mesh: Mesh, options: Options | None = None
) -> jax.stages.Compiled:
    """Compiles `make_train_step`; runs nothing and allocates no arrays.

    Args:
      config: of the run.
      mesh: of real devices, or of those of a topology.
      options: of XLA; None: `compiler_options(mesh)`.
    """
    config = for_devices(config, mesh)
    options = compiler_options(mesh) if options is None else options
    state = abstract_state(config, mesh)
    step = make_train_step(config, mesh, options)
    compiled = step.lower(state, abstract_batch(config, mesh)).compile()
    packed = any(leaf.dtype == jnp.int4 for leaf in jax.tree.leaves(state.frozen))
    return cast(jax.stages.Compiled, _PackedStep(compiled, step)) if packed else compiled


class _PackedStep:
    """A compiled step that takes arrays of int4.

    Of those jax (0.10.2) takes the 4 bits for another layout than that of the arrays, and refuses
    to call the program, but not the function that it was compiled from, which compiles no more.
    """

    def __init__(self, compiled: jax.stages.Compiled, step: TrainStep):
        self._compiled, self._step = compiled, step

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return self._step(state, batch)

    def __getattr__(self, name: str) -> object:
        return getattr(self._compiled, name)


def _gradients(
    config: Config, mesh: Mesh, loss: Loss, state: TrainState, batch: Batch
) -> tuple[Params, Sums]:
    """The gradient of the global batch's loss by the trainable parameters, and the loss's sums."""
    # A function of seed and step, so that a resumed run draws the same dropout.
    key = jax.random.fold_in(key_of(config.train.seed), state.step)
    has_dropout = config.has_dropout

    def loss_of_rows(
        sites: Params, params: Split, key: jax.Array, rows: Batch, coefficients: Scale
    ) -> tuple[jax.Array, Sums]:
        trainable, frozen = params
        model = bind(config.resolved_model, join_params(_at_sites(trainable, sites), frozen))
        dropout_key = key if has_dropout else None
        return loss.sums(config.train, mesh, model, rows, coefficients, dropout_key)

    sites = _sites(state.trainable, jnp.dtype(config.compute.dtype), mesh)
    gradient_of = jax.grad(loss_of_rows, has_aux=True)
    coefficients = loss.coefficients(config.train, batch)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(
        jnp.arange(config.train.accumulation_steps)
    )
    arguments = (sites, (state.trainable, state.frozen), keys, batch, coefficients)
    # Dropout is drawn for all rows of a micro-batch together, which no replica has alone.
    if len(keys) > 1 and mesh.shape["data"] > 1 and not has_dropout:
        return sum_over_replicas(gradient_of, *arguments)
    return sum_over_micro_batches(gradient_of, *arguments)


def _sites(params: Params, dtype: jnp.dtype, mesh: Mesh) -> Params:
    """The tree by which the gradient is taken: `Master.site` for matrices, else the parameters.

    A matrix that has the `dtype` of the computation needs no site, and a `Weight` has its own way
    (`glm_jax.models.weights`).
    """

    def site(path: tuple, param: jax.Array) -> jax.Array:
        name = path_name(path)
        if not is_matrix(name) or param.dtype == dtype:
            return param
        sharding = NamedSharding(mesh, param_spec(name, param.shape, mesh))
        return jax.lax.with_sharding_constraint(jnp.zeros(param.shape, dtype), sharding)

    return jax.tree.map_with_path(site, params)


def _at_sites(params: Params, sites: Params) -> Params:
    """Parameters to compute with whose gradients arrive at `sites`."""
    return jax.tree.map(
        lambda param, site: site if site.dtype == param.dtype else Master(param, site),
        params,
        sites,
    )
