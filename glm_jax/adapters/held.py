"""Parameters as a run holds them: which of them are trained, quantised, or have an adapter.

    lora.rank=8      layers/attention/query/kernel          LowRank(base, a, b)
                     trained: ../query/kernel/a, ../query/kernel/b      frozen: all else

What a run holds follows from its config alone, so that its shapes are known before there is an
array: for planning, sharding, and restoring a checkpoint.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import PyTree

from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantised import abstract_quantised, is_quantised, num_inputs, quantised
from glm_jax.adapters.quantising import Quantize, quantize_of
from glm_jax.config import Config
from glm_jax.config.lora import LoraConfig
from glm_jax.errors import UserError, did_you_mean
from glm_jax.models.seeds import fold_name, key_of
from glm_jax.models.trees import Params, from_paths, split_params, to_paths
from glm_jax.models.weights import Weight
from glm_jax.sharding.rules import param_spec, without_layer


def quantised_base(config: Config) -> Quantize | None:
    """How `train.quantize_base` holds the matrices that are not trained; None: plainly."""
    how = quantize_of(config.train.quantize_base)
    if how is None:
        return None
    return Quantize(how.bits, config.train.quantize_group_size)


def is_target(lora: LoraConfig, path: str) -> bool:
    """Whether the matrix of a path, with the number of a layer or without, has an adapter."""
    bare = without_layer(path)
    if not (lora.rank and bare.startswith("layers/") and bare.endswith("/kernel")):
        return False
    name = bare.removeprefix("layers/").removesuffix("/kernel")
    return any(re.fullmatch(pattern, name) for pattern in lora.patterns)


def check_targets(config: Config, params: Params) -> None:
    """Refuses a pattern of `lora.targets` that matches no matrix of the model's layers.

    Args:
      config: of the run.
      params: of the model, layers stacked or listed, of leaves of any kind.

    Raises:
      UserError: names the pattern and the nearest names.
    """
    paths = set(map(without_layer, filter(_is_matrix, to_paths(params))))
    names = sorted(path.removeprefix("layers/").removesuffix("/kernel") for path in paths)
    for pattern in config.lora.patterns if config.lora.rank else ():
        if not any(re.fullmatch(pattern, name) for name in names):
            raise UserError(
                f"lora.targets: {pattern!r} matches no matrix of the model's layers"
                f"{did_you_mean(pattern, names)}; there are {', '.join(names)}"
            )


def _is_matrix(path: str) -> bool:
    """Whether a path is that of a matrix of a layer."""
    return path.startswith("layers/") and path.endswith("/kernel")


def abstract_base(config: Config, shapes: Params) -> Params:
    """The parameters without adapters, as `jax.ShapeDtypeStruct`s with shardings.

    Args:
      config: of the run.
      shapes: of its model (`glm_jax.models.params.abstract_params`), layers stacked or listed.
    """
    how = quantised_base(config)
    if how is None:
        return shapes
    leaves = to_paths(shapes)
    for path in filter(_is_matrix, list(leaves)):
        if not _is_named(config, path):
            leaves[path] = _quantised_like(path, leaves[path], how)
    return from_paths(leaves)


def _is_named(config: Config, path: str) -> bool:
    """Whether `train.trainable` names a matrix."""
    chosen = config.train.trainable
    return chosen is not None and re.fullmatch(chosen, without_layer(path)) is not None


def _quantised_like(path: str, leaf: jax.ShapeDtypeStruct, how: Quantize) -> PyTree:
    is_stacked = without_layer(path) == path
    shape = leaf.shape[is_stacked:]
    groups = how.num_groups(path, math.prod(shape[: num_inputs(path)]))
    values = jnp.int8 if how.bits == 8 else jnp.int4
    one = abstract_quantised(path, shape, values, groups)
    lead = leaf.shape[:is_stacked]
    arrays = (
        jax.ShapeDtypeStruct((*lead, *array.shape), array.dtype)
        for array in (one.values, one.scale)
    )
    return _placed(quantised(path, *arrays), leaf.sharding)


def _placed(node: Weight, of_matrix: NamedSharding) -> PyTree:
    """A weight of shapes with the shardings that follow from that of its matrix."""
    return jax.tree.map(
        lambda array, spec: array.update(sharding=NamedSharding(of_matrix.mesh, spec)),
        node,
        node.specs(of_matrix.spec),
    )


def abstract_held(config: Config, shapes: Params) -> Params:
    """`abstract_base` with the adapters of `lora`."""
    leaves = to_paths(abstract_base(config, shapes))
    for path, base in leaves.items():
        if is_target(config.lora, path):
            mesh = jax.tree.leaves(base)[0].sharding.mesh
            of_matrix = NamedSharding(mesh, param_spec(path, base.shape, mesh))
            leaves[path] = _placed(_beside(config.lora, path, base), of_matrix)
    return from_paths(leaves)


def _beside(lora: LoraConfig, path: str, base: PyTree) -> LowRank:
    """Shapes of a matrix with its adapter."""
    lead, shape = base.shape[: without_layer(path) == path], base.shape
    shape = shape[len(lead) :]
    inputs, outputs = shape[: num_inputs(path)], shape[num_inputs(path) :]
    a = jax.ShapeDtypeStruct((*lead, *inputs, lora.rank), jnp.float32)
    b = jax.ShapeDtypeStruct((*lead, lora.rank, *outputs), jnp.float32)
    return LowRank(base, a, b, lora.scale, lora.dropout)  # type: ignore[arg-type]


def draw_adapters(config: Config, held: Params) -> Params:
    """The adapters that a run begins with, without their bases.

    a is uniform in +-1 / sqrt(inputs), as in PEFT, by the seed and the path, whatever the mesh; b
    is 0. So the model is at first the base.

    Args:
      config: of the run.
      held: of `abstract_held`, layers stacked.
    """
    leaves = to_paths(held)
    targets = {path: leaf for path, leaf in leaves.items() if is_target(config.lora, path)}
    if not targets:
        return {}
    alone = {path: _without_base(leaf) for path, leaf in targets.items()}
    shardings = jax.tree.map(lambda leaf: leaf.sharding, alone)

    def draw(key: jax.Array) -> PyTree:
        return {path: _drawn(fold_name(key, path), path, leaf) for path, leaf in alone.items()}

    key = fold_name(key_of(config.train.seed), "lora")
    return from_paths(jax.jit(draw, out_shardings=shardings)(key))


def _drawn(key: jax.Array, path: str, like: LowRank) -> LowRank:
    layers, *inputs, rank = like.a.shape
    bound = 1 / math.sqrt(math.prod(inputs))
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(layers))

    def of_layer(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (*inputs, rank), jnp.float32, -bound, bound)

    return _without_base(like, jax.lax.map(of_layer, keys), jnp.zeros(like.b.shape, jnp.float32))


def _without_base(node: LowRank, a: PyTree = None, b: PyTree = None) -> LowRank:
    a, b = (node.a if a is None else a), (node.b if b is None else b)
    return LowRank(None, a, b, node.scale, node.rate)  # type: ignore[arg-type]


def with_trained(params: Params, trained: Params) -> Params:
    """Parameters with what was trained in their place: adapters beside their bases, others instead.

    Args:
      params: of the base, layers as those of `trained`.
      trained: a part of the parameters, of `split_held`; an adapter has no arrays for its base.
    """
    leaves = to_paths(params)
    for path, leaf in to_paths(trained).items():
        if isinstance(leaf, LowRank) and not jax.tree.leaves(leaf.base):
            leaf = LowRank(leaves[path], leaf.a, leaf.b, leaf.scale, leaf.rate)
        leaves[path] = leaf
    return from_paths(leaves)


def split_held(config: Config, params: Params) -> tuple[Params, Params]:
    """The parameters that a run trains, and those that it does not.

    Args:
      config: of the run.
      params: as `abstract_held` gives them, of leaves of any kind.

    Raises:
      UserError: `train.trainable` or a part of `lora.targets` matches nothing, or what is trained
        is quantised.
    """
    chosen = config.train.trainable
    if not config.lora.rank:
        found = split_params(params, chosen)
    else:
        check_targets(config, params)
        if chosen is not None:
            split_params(params, chosen)
        paths = sorted({without_layer(path) for path in to_paths(params)})
        targets = [re.escape(path) for path in paths if is_target(config.lora, path)]
        adapters = f"(?:{'|'.join(targets)})/(?:a|b)"
        found = split_params(params, adapters if chosen is None else f"{adapters}|(?:{chosen})")
    for path, leaf in jax.tree.leaves_with_path(found[0]):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserError(
                f"train.trainable={chosen!r} names {jax.tree_util.keystr(path, simple=True)}"
                ", which are integers and cannot be trained"
            )
    return found


def plain_base(config: Config, params: Params) -> Params:
    """The parameters of a loaded model as `abstract_base` has them: weights that are not to be kept
    quantised become plain matrices in `model.param_dtype`, adapters among them merged."""
    how = quantised_base(config)

    def kept(path: str, leaf: PyTree) -> bool:
        in_layers = path.startswith("layers/") and not _is_named(config, path)
        return how is not None and in_layers and is_quantised(leaf)

    leaves = to_paths(params)
    for path, leaf in leaves.items():
        if isinstance(leaf, Weight) and not kept(path, leaf):
            leaves[path] = leaf.used(config.model.param_dtype)
    return from_paths(leaves)


def check_base(config: Config, params: Params, like: Params) -> None:
    """Refuses matrices that are quantised otherwise than `train.quantize_base` says.

    Args:
      config: of the run.
      params: of `plain_base`.
      like: of `abstract_base`, layers as in `params`.

    Raises:
      UserError: names the first matrix that is.
    """
    found = to_paths(params)
    for path, wanted in to_paths(like).items():
        leaf = found.get(path)
        if not is_quantised(wanted) or leaf is None:
            continue
        if not is_quantised(leaf) or (leaf.bits, leaf.num_groups) != (
            wanted.bits,
            wanted.num_groups,
        ):
            there = "plain"
            if is_quantised(leaf):
                there = f"int{leaf.bits} with {leaf.num_groups} scale(s) per output"
            raise UserError(
                f"train.quantize_base={config.train.quantize_base!r} with quantize_group_size="
                f"{config.train.quantize_group_size} gives {path} {wanted.num_groups} scale(s) per "
                f"output; train.init_from={config.train.init_from!r} has it {there}"
            )
