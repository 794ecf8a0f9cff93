"""A model as it lies in a directory of any kind: what `glm_jax.load` and a new run begin with."""

import dataclasses
import logging
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from glm_jax.adapters.factors import with_factors
from glm_jax.adapters.held import (
    abstract_base,
    check_base,
    plain_base,
    quantised_base,
    with_trained,
)
from glm_jax.adapters.quantising import Quantize, quantize_of
from glm_jax.checkpoints.adapters import read_adapter
from glm_jax.checkpoints.finding import RUN, find_workdir, on_this_machine
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config import Config
from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.config.training import MeshConfig
from glm_jax.data.record import check_kept
from glm_jax.errors import UserError
from glm_jax.interop.checkpoint import open_directory
from glm_jax.interop.companions import TOKENIZER_FILES, VOCABULARIES, lies_inside
from glm_jax.interop.finite import Unusable
from glm_jax.interop.huggingface import Progress, load_directory, silent
from glm_jax.interop.origin import Origin, read_generation
from glm_jax.models.params import abstract_params
from glm_jax.models.trees import Params, cast, from_paths, is_stacked, unstack_layers
from glm_jax.models.value_head import NAME as VALUE_HEAD
from glm_jax.paths import adapter_directory, checkpoint
from glm_jax.sharding.mesh import make_mesh
from glm_jax.sharding.rules import path_name
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.settings import KINDS
from glm_jax.tokenizers.tokenizer import load_tokenizer

_LOG = logging.getLogger(__name__)
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model that was read.

    Attributes:
      config: its shape, and how it ran; `param_dtype` is that of the parameters.
      params: nested dict of arrays on the mesh, layers stacked or listed as they lay.
      tokenizer: beside it, or None.
      origin: what `save` needs of where it came from.
    """

    config: ResolvedModel
    params: Params
    tokenizer: Tokenizer | None
    origin: Origin


def load_model(
    path: str | Path,
    dtype: str | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    quantize: str | Quantize | None = None,
) -> Loaded:
    """Reads a model; arguments and errors as of `glm_jax.load`."""
    path, how = checkpoint(path), quantize_of(quantize)
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype must be one of {DTYPES}; got {dtype!r}")
    workdir = find_workdir(path)
    home = on_this_machine(path, workdir)
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    if workdir is not None:
        run, params = _load_run(path, mesh, progress, how)
        config = run.resolved_model
        origin = Origin(directory=home, generation=read_generation(home))
        if dtype is not None:
            params = cast(params, dtype)
            config = dataclasses.replace(config, param_dtype=dtype)
        unusable = Unusable()
        for where, leaf in jax.tree.leaves_with_path(params):
            unusable.look_at_leaf(path_name(where), leaf)
        unusable.warn(str(path))
    else:
        model, params, origin = load_directory(home, dtype, mesh, progress, how)
        config = model.resolved()
    tokenizer = _tokenizer_of(home)
    if tokenizer is not None:
        if workdir is not None:
            check_kept(home, tokenizer)
        check_fits(tokenizer, config, origin, home)
    return Loaded(config, params, tokenizer, origin)


def _load_run(
    path: Path, mesh: Mesh, progress: Progress, how: Quantize | None
) -> tuple[Config, Params]:
    """The config and all parameters of a run, those that it did not train from its base."""
    from glm_jax.checkpoints.params import load_saved  # brings orbax

    saved = load_saved(path, mesh=mesh)
    if saved.base is None:
        params = saved.params if how is None else quantise_params(saved.params, mesh, how)
        return saved.config, params
    where = saved.base.where()
    base = load_base(saved.config, where, mesh, progress, how)
    saved.base.check(base.params, where)
    return saved.config, _joined(base.params, saved.params)


def load_base(
    config: Config,
    path: str | Path,
    mesh: Mesh,
    progress: Progress = silent,
    quantize: Quantize | None = None,
) -> Loaded:
    """The model that a run begins with, its parameters as the run holds them, without adapters.

    Args:
      config: of the run; `train.quantize_base` says how matrices are held.
      path, mesh, progress: as of `load_model`.
      quantize: how matrices are held where `config` says nothing.

    Raises:
      UserError: as `load_model`; or it is quantised otherwise than `config` says.
    """
    how = quantised_base(config)
    if how is not None and quantize is not None:
        raise UserError("quantize: the model is quantised already; load it without")
    model = load_model(
        path,
        config.model.param_dtype,
        mesh,
        progress,
        quantize if how is None or holds_quantised(path) else how,
    )
    if quantize is not None:
        return model
    params = plain_base(config, model.params)
    shapes = abstract_params(config.resolved_model, mesh, listed=not is_stacked(params))
    check_base(config, params, abstract_base(config, shapes))
    return dataclasses.replace(model, params=params)


def holds_quantised(path: str | Path) -> bool:
    """Whether the model of a path has quantised matrices; its weights are not read."""
    path = checkpoint(path)
    workdir = find_workdir(path)
    if workdir is None:
        return any(
            row.dtype is not None for row in open_directory(on_this_machine(path, None)).rows
        )
    from glm_jax.checkpoints.params import base_of, stored_quantised  # brings orbax

    return base_of(path) is None and bool(stored_quantised(path))


def _joined(base: Params, trained: Params) -> Params:
    """The parameters of a base with what was trained over it; layers as in the base."""
    same = trained if is_stacked(base) else unstack_layers(trained)
    return with_trained(base, same)


def with_adapter(model: Loaded, adapter: str | Path, mesh: Mesh | None = None) -> Loaded:
    """The model with what was trained over it; its own arrays are shared.

    Args:
      model: the base.
      adapter: a P-Tuning or PEFT directory; or the workdir of a run that trained a part of the
        parameters, or one of its checkpoints; or "bundled:aligned".
      mesh: as of `load_model`.

    Raises:
      UserError: as `read_adapter`; or the run's base is another model.
    """
    path = adapter_directory(adapter)
    if any((where / RUN).is_file() for where in (path, path.parent.parent)):
        return _with_run(model, path, mesh)
    return _with_directory(model, path, mesh)


def _with_run(model: Loaded, path: Path, mesh: Mesh | None) -> Loaded:
    from glm_jax.checkpoints.params import load_saved  # brings orbax

    saved = load_saved(path, mesh=mesh)
    if saved.base is None:
        raise UserError(f"adapter: the run in {str(path)!r} holds a whole model; load it by itself")
    saved.base.check(model.params, model.origin.directory or "the model")
    config = model.config
    if "prefix" in saved.params:
        config = config.with_prefix(saved.config.model).resolved(config.compute)
    if VALUE_HEAD in saved.params:
        config = dataclasses.replace(config, value_head=True)
    params = _joined(model.params, saved.params)
    return dataclasses.replace(model, config=config, params=params)


def _with_directory(model: Loaded, path: Path, mesh: Mesh | None) -> Loaded:
    """The model with the LoRA or the prefix of a P-Tuning or PEFT directory."""
    found = read_adapter(path, model.config, model.origin)
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    if found.base is not None:
        found.base.check(model.params, model.origin.directory or "the model")
    if found.factors:
        return dataclasses.replace(model, params=with_factors(model.params, found.factors, mesh))
    config = found.config.resolved(model.config.compute)
    like = abstract_params(config, mesh)

    def placed(leaf: jax.ShapeDtypeStruct, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, leaf.sharding, array.__getitem__)

    prefix = jax.tree.map(placed, like["prefix"], from_paths(found.prefix)["prefix"])
    return dataclasses.replace(model, config=config, params={**model.params, "prefix": prefix})


def _tokenizer_of(directory: Path) -> Tokenizer | None:
    """The tokenizer beside a model, or None where there is none that `load_tokenizer` reads.

    A model works on ids all the same.
    """
    if not any((directory / name).is_file() for name in VOCABULARIES):
        return None
    found = [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
    outside = [file for file in found if not lies_inside(directory, file)]
    if outside:
        _LOG.warning(
            "the model comes without a tokenizer: %s is a link to %s, outside of its directory",
            outside[0],
            outside[0].resolve(),
        )
        return None
    try:
        return load_tokenizer(directory)
    except UserError as error:
        _LOG.warning("the model comes without a tokenizer: %s", error)
        return None


def check_fits(tokenizer: Tokenizer, config: ModelConfig, origin: Origin, where: Path) -> None:
    """Refuses the tokenizer of another chat model; a padded model has more ids than its own.

    Those without a chat format are not looked at: small models stand beside large vocabularies.

    Args:
      tokenizer: found beside the model.
      config, origin: of the model.
      where: the directory, for errors.

    Raises:
      UserError: it has ids that the model has not, or is of another generation.
    """
    if tokenizer.kind not in (*KINDS, "huggingface"):
        return
    model = origin.architecture.name if origin.architecture else "the model"
    theirs = f"the tokenizer in {str(where)!r} (of the kind {tokenizer.kind!r})"
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{theirs} has {tokenizer.vocab_size} ids, and {model} has a vocabulary of "
            f"{config.vocab_size}: it belongs to another model"
        )
    kinds = origin.architecture.tokenizers if origin.architecture else ()
    if kinds and tokenizer.kind != "huggingface" and tokenizer.kind not in kinds:
        raise UserError(
            f"{theirs} is not one of {model}, which is of the kind {' or '.join(kinds)}"
        )
