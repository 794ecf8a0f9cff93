"""A model as it lies in a directory of any kind: what `glm_jax.load` and a new run begin with."""

import dataclasses
import logging
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from glm_jax.adapters.quantising import Quantize, quantize_of
from glm_jax.checkpoints.finding import find_workdir, on_this_machine
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.config.training import MeshConfig
from glm_jax.data.record import check_kept
from glm_jax.errors import UserError
from glm_jax.interop.companions import TOKENIZER_FILES, VOCABULARIES, lies_inside
from glm_jax.interop.finite import Unusable
from glm_jax.interop.huggingface import Progress, load_directory, silent
from glm_jax.interop.origin import Origin, read_generation
from glm_jax.interop.prefixes import read_prefix_directory
from glm_jax.models.params import abstract_params
from glm_jax.models.trees import Params, cast, from_paths
from glm_jax.paths import checkpoint, expanded
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
        from glm_jax.checkpoints.params import load_params  # brings orbax

        run, params = load_params(path, mesh=mesh)
        config = run.resolved_model
        origin = Origin(directory=home, generation=read_generation(home))
        if dtype is not None:
            params = cast(params, dtype)
            config = dataclasses.replace(config, param_dtype=dtype)
        unusable = Unusable()
        for where, leaf in jax.tree.leaves_with_path(params):
            unusable.look_at_leaf(path_name(where), leaf)
        unusable.warn(str(path))
        if how is not None:
            params = quantise_params(params, mesh, how)
    else:
        model, params, origin = load_directory(home, dtype, mesh, progress, how)
        config = model.resolved()
    tokenizer = _tokenizer_of(home)
    if tokenizer is not None:
        if workdir is not None:
            check_kept(home, tokenizer)
        check_fits(tokenizer, config, origin, home)
    return Loaded(config, params, tokenizer, origin)


def with_adapter(model: Loaded, adapter: str | Path, mesh: Mesh | None = None) -> Loaded:
    """The model with a trained prefix.

    Args:
      model: without one.
      adapter: a P-Tuning or PEFT directory.
      mesh: as of `load_model`.

    Raises:
      UserError: as `read_prefix_directory`.
    """
    home = on_this_machine(expanded(adapter), None)
    found = read_prefix_directory(home, model.config, model.origin)
    config = found.config.resolved(model.config.compute)
    like = abstract_params(config, mesh or make_mesh(MeshConfig(), jax.devices()[:1]))

    def placed(leaf: jax.ShapeDtypeStruct, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, leaf.sharding, array.__getitem__)

    prefix = jax.tree.map(placed, like["prefix"], from_paths(found.leaves)["prefix"])
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
