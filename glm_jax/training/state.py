"""Makes a training state, as arrays or as their shapes; its optimizer state as plain dicts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from flax import serialization
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glm_jax.adapters.held import (
    abstract_base,
    abstract_held,
    draw_adapters,
    split_held,
    with_trained,
)
from glm_jax.adapters.low_rank import LowRank
from glm_jax.config import Config
from glm_jax.errors import UserError
from glm_jax.models.local_attention import with_local_attention
from glm_jax.models.params import abstract_params, create_params
from glm_jax.models.trees import Params, from_paths, to_paths
from glm_jax.models.weights import with_kind
from glm_jax.sharding.mesh import replicated
from glm_jax.training.optimizer.optimizers import learning_rate_schedule, make_optimizer
from glm_jax.training.train_state import TrainState


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """The optimizer of a run."""
    schedule = learning_rate_schedule(config.optimizer, config.train.num_steps)
    return make_optimizer(config.optimizer, schedule)


def create_state(config: Config, mesh: Mesh, params: Params | None = None) -> TrainState:
    """A new state; every array is created with its sharding.

    Args:
      config: of the run.
      mesh: its devices.
      params: initial parameters on the mesh, as `glm_jax.adapters.held.abstract_base` has them, but
        that their matrices are plain arrays where they are not quantised; None: random ones.

    Raises:
      UserError: random ones, and `train.quantize_base`.
    """
    trainable, frozen = initial_params(config, mesh, params)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    opt_state = jax.jit(optimizer_of(config).init, out_shardings=shardings.opt_state)(trainable)
    return TrainState(jax.device_put(jnp.int32(0), shardings.step), trainable, frozen, opt_state)


def initial_params(
    config: Config, mesh: Mesh, params: Params | None = None
) -> tuple[Params, Params]:
    """The parameters that a run begins with: those that it trains, and those that it does not.

    Arguments and errors are those of `create_state`.
    """
    if params is None:
        if config.train.quantize_base is not None:
            raise UserError(
                f"train.quantize_base={config.train.quantize_base!r} is for a model that was "
                "trained; set train.init_from"
            )
        params = create_params(config.resolved_model, mesh, config.train.seed)
        if config.train.local_start:
            start = functools.partial(with_local_attention, config=config.resolved_model)
            where = jax.tree.map(lambda leaf: leaf.sharding, params)
            params = jax.jit(start, out_shardings=where)(params)
    shapes = _shapes(config, mesh)
    if config.train.weights != "plain":
        change = functools.partial(with_kind, kind=config.train.weights)
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract_base(config, shapes))
        params = jax.jit(change, out_shardings=where)(params)
    params = with_trained(params, draw_adapters(config, abstract_held(config, shapes)))
    return split_held(config, params)


def held_params(config: Config, mesh: Mesh, *, listed: bool = False) -> Params:
    """The parameters of a run, adapters among them, as `jax.ShapeDtypeStruct`s with shardings."""
    return abstract_held(config, _shapes(config, mesh, listed=listed))


def _shapes(config: Config, mesh: Mesh, *, listed: bool = False) -> Params:
    return abstract_params(config.resolved_model, mesh, config.train.weights, listed=listed)


def saves_trained_alone(config: Config) -> bool:
    """Whether checkpoints leave out what is not trained, since `train.init_from` has it.

    What was drawn at random lies nowhere else, and is saved. Kinds of weights of a module of one's
    own (`train.weights`) have no fingerprint, and are saved whole too.
    """
    return config.freezes and config.train.init_from is not None and config.train.weights == "plain"


def frozen_part(config: Config, mesh: Mesh, params: Params) -> Params:
    """What of the parameters that a run begins with it does not train, as `TrainState.frozen`.

    Args:
      config, mesh: of the run.
      params: as of `create_state`.
    """
    adapters = {
        path: dataclasses.replace(leaf, base=None)  # type: ignore[arg-type]
        for path, leaf in to_paths(held_params(config, mesh)).items()
        if isinstance(leaf, LowRank)
    }
    return split_held(config, with_trained(params, from_paths(adapters)))[1]


def abstract_state(config: Config, mesh: Mesh, *, listed: bool = False) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s with shardings, without arrays.

    Args:
      config, mesh: of the run.
      listed: layers one by one, as checkpoints of older versions may have them.
    """
    trainable, frozen = split_held(config, held_params(config, mesh, listed=listed))
    optimizer = optimizer_of(config)
    everywhere = replicated(mesh)

    like = functools.partial(
        jax.tree.map,
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    )
    # A moment is sharded like its parameter; counters are replicated.
    opt_state = optax.tree.map_params(
        optimizer,
        lambda moment, param: like(
            moment, _moment_sharding(moment.shape, param.shape, param.sharding)
        ),
        jax.eval_shape(optimizer.init, trainable),
        trainable,
        transform_non_params=lambda leaf: like(leaf, everywhere),
    )
    return TrainState(like(jnp.int32(0), everywhere), trainable, frozen, opt_state)


def _moment_sharding(
    shape: tuple[int, ...], of_param: tuple[int, ...], sharding: NamedSharding
) -> NamedSharding:
    """The sharding of a moment that has its parameter's dimensions, or all but some adjacent ones.

    If shapes leave open which dimensions are missing and the choices are sharded differently, the
    moment is replicated; such a moment is small.
    """
    spec = (*sharding.spec, *[None] * (len(of_param) - len(sharding.spec)))
    gap = len(of_param) - len(shape)
    found = {
        spec[:start] + spec[start + gap :]
        for start in range(len(shape) + 1)
        if of_param[:start] + of_param[start + gap :] == shape
    }
    only = found.pop() if len(found) == 1 else ()
    return NamedSharding(sharding.mesh, PartitionSpec(*only))


def num_bytes(tree: object) -> int:
    """Total bytes of a tree of arrays or of abstract arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def opt_state_to_dict(opt_state: optax.OptState) -> Params:
    """An optax state as the plain nested dict that checkpoints hold."""
    return serialization.to_state_dict(opt_state)


def opt_state_from_dict(like: optax.OptState, values: Params) -> optax.OptState:
    """The inverse of `opt_state_to_dict`, into the structure of `like`."""
    return serialization.from_state_dict(like, values)
