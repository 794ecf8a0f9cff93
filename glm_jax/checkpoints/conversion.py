"""Describes a conversion before it happens, and converts tensor by tensor without loading."""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from glm_jax.adapters.held import quantised_base
from glm_jax.adapters.quantised import (
    AnyQuantised,
    abstract_quantised,
    is_quantised,
    num_bytes,
    num_inputs,
    quantised_in,
)
from glm_jax.adapters.quantising import Quantize
from glm_jax.checkpoints.adapters import Adapter, read_adapter
from glm_jax.checkpoints.finding import RUN, find_workdir, on_this_machine
from glm_jax.checkpoints.params import base_of, holds_only_params, stored_quantised
from glm_jax.config.files import read_run
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.files import check_replaceable
from glm_jax.interop.checkpoint import Checkpoint, check_repeated, open_directory
from glm_jax.interop.companions import Companions
from glm_jax.interop.huggingface import Progress, silent, write_directory
from glm_jax.interop.origin import Origin
from glm_jax.interop.packed import TABLES, is_quantisable, read_bits, stored_dtype
from glm_jax.interop.save_plan import Leaf, SaveAs, is_model, plan_save
from glm_jax.interop.weights import StoredTensor
from glm_jax.models.params import abstract_params
from glm_jax.models.prefix import is_prefix
from glm_jax.models.trees import to_paths
from glm_jax.remote import is_remote


@dataclasses.dataclass(frozen=True)
class Source:
    """A model whose config and tensor shapes were read, but not its weights.

    Attributes:
      path: its directory.
      config: of the model.
      leaves: shape and dtype of each parameter, layers listed; a quantised matrix of such.
      checkpoint: of a Hugging Face directory; None for a model that glm_jax trained.
      workdir: of a model that glm_jax trained, or what of it was copied from a bucket; None for a
        Hugging Face directory.
      adapter: that it will have, or has as a run: a prefix, or a LoRA, which is folded in.
    """

    path: Path
    config: ModelConfig
    leaves: Mapping[str, Leaf]
    checkpoint: Checkpoint | None
    workdir: Path | None = None
    adapter: Adapter | None = None

    @property
    def folds(self) -> bool:
        """Whether a LoRA is folded in."""
        return self.adapter is not None and self.adapter.is_lora

    @property
    def origin(self) -> Origin:
        """Where the model came from; for one that glm_jax trained only its directory is known."""
        return self.checkpoint.origin if self.checkpoint else Origin(directory=self.workdir)


def look(path: Path, dtype: str | None, mesh: Mesh, adapter: Path | None = None) -> Source:
    """Reads a model's config and the shapes of its tensors.

    Args:
      path: a Hugging Face directory, a workdir, or one of its checkpoints.
      dtype: to which parameters will be cast; None: each keeps its own.
      mesh: any mesh; shapes do not depend on it.
      adapter: directory of an adapter that the model will be given.

    Raises:
      UserError: there is no model, or it cannot be used.
    """
    workdir = find_workdir(path)
    stored: dict[str, StoredTensor] = {}
    kept: dict[str, AnyQuantised] = {}
    checkpoint, found_adapter, held = None, None, None
    if workdir is None:
        checkpoint = open_directory(on_this_machine(path, None))
        config = checkpoint.config
        for row in checkpoint.rows:
            stored |= {name: checkpoint.tensor(row) for name in row.paths}
    else:
        run = read_run(workdir / RUN)[0]
        config = run.model
        # Other kinds of weights are written plainly.
        tuned = base_of(path) is not None
        found_adapter = Adapter(config, run=run) if tuned else None
        held = quantised_base(run) if tuned else None
        kept = stored_quantised(path) if run.train.weights == "plain" and not tuned else {}
    if adapter is not None:
        origin = checkpoint.origin if checkpoint else Origin()
        found_adapter = _look_at_adapter(adapter, config, origin)
        config = found_adapter.config
    config = dataclasses.replace(config, param_dtype=dtype or config.param_dtype)
    shapes = to_paths(abstract_params(config.resolved(), mesh, listed=True))

    def of(name: str, leaf: jax.ShapeDtypeStruct) -> Leaf:
        if name in kept or is_prefix(name):
            return kept.get(name, leaf)
        if f"{name}/scale" not in stored:
            found = stored[name].dtype if name in stored else leaf.dtype
            return jax.ShapeDtypeStruct(leaf.shape, dtype or found)
        assert checkpoint is not None
        scale = stored[f"{name}/scale"]
        groups = scale.shape[1] if len(scale.shape) > 1 else 1
        values = stored_dtype(read_bits(checkpoint.origin.values) or 8)
        return abstract_quantised(name, leaf.shape, values, groups, scale.dtype or "float16")

    leaves = {name: of(name, leaf) for name, leaf in shapes.items()}
    leaves = leaves if held is None else _quantised_leaves(leaves, held)
    home = None if workdir is None else on_this_machine(path, workdir)
    return Source(path, config, leaves, checkpoint, home, found_adapter)


def _look_at_adapter(path: Path, config: ModelConfig, origin: Origin) -> Adapter:
    """What an adapter makes of a model; of a run its config alone is read."""
    workdir = next((one for one in (path, path.parent.parent) if (one / RUN).is_file()), None)
    if workdir is None:
        return read_adapter(path, config, origin)
    run = read_run(workdir / RUN)[0]
    if run.model.prefix_length and not config.prefix_length:
        config = config.with_prefix(run.model)
    return Adapter(config, run=run)


def check_folds(source: Source) -> None:
    """Refuses a LoRA beside quantised matrices, before anything is loaded.

    Args:
      source: as it will be written.

    Raises:
      UserError: its matrices are quantised in its directory.
    """
    if source.folds and any(map(is_quantised, source.leaves.values())):
        raise UserError(
            f"the model in {str(source.path)!r} is quantised, and a LoRA is folded into plain "
            "matrices: give --dequantize, or the model as it was before"
        )


def quantised_source(source: Source, how: Quantize) -> Source:
    """`source` as it will be once it is quantised.

    Raises:
      UserError: it is quantised already, or groups do not divide inputs.
    """
    if any(map(is_quantised, source.leaves.values())):
        raise UserError(f"--quantize: the model in {str(source.path)!r} is quantised already")
    return dataclasses.replace(source, leaves=_quantised_leaves(source.leaves, how))


def _quantised_leaves(leaves: Mapping[str, Leaf], how: Quantize) -> dict[str, Leaf]:
    def of(path: str, leaf: Leaf) -> Leaf:
        if not is_quantisable(path, how):
            return leaf
        inputs = leaf.shape[1:] if path in TABLES else leaf.shape[: num_inputs(path)]
        groups = how.num_groups(path, math.prod(inputs))
        return abstract_quantised(path, leaf.shape, stored_dtype(how.bits), groups)

    return {path: of(path, leaf) for path, leaf in leaves.items()}


def dequantised_source(source: Source) -> Source:
    """`source` as it will be once its matrices are plain.

    Raises:
      UserError: they are.
    """
    if not any(map(is_quantised, source.leaves.values())):
        raise UserError(f"--dequantize: the model in {str(source.path)!r} is not quantised")
    leaves = {
        path: jax.ShapeDtypeStruct(leaf.shape, source.config.param_dtype)
        if is_quantised(leaf)
        else leaf
        for path, leaf in source.leaves.items()
    }
    return dataclasses.replace(source, leaves=leaves)


def check_apart(source: Path, destination: Path) -> None:
    """Refuses to write a model over its source, or over a directory that contains the source.

    Raises:
      UserError: `source` is `destination` or is inside it, after links are followed.
    """
    if is_remote(source) or is_remote(destination):
        inside = is_remote(source) == is_remote(destination) and source.is_relative_to(destination)
    else:
        # `Path.resolve` would raise an error of another kind for a loop of links.
        inside = Path(os.path.realpath(source)).is_relative_to(os.path.realpath(destination))
    if inside:
        raise UserError(
            f"{str(destination)!r} is or holds {str(source)!r}, from which the model is read; give "
            "another directory"
        )


def check_target(path: Path, to: str) -> None:
    """Refuses a directory that `LanguageModel.save` would refuse, before anything is loaded.

    Args:
      path: where the model will be written.
      to: "huggingface" or "orbax".

    Raises:
      UserError: `path` holds something that is not a model of that format.
    """
    if to == "huggingface":
        check_replaceable(path, is_model)
        return
    check_replaceable(path, holds_only_params)


def describe(source: Source, destination: Path, to: str, names: str) -> str:
    """Lines of text on a conversion: architecture, config, parameters, bytes and files.

    Args:
      source: from `look`.
      destination: the directory that will be written.
      to: "huggingface" or "orbax".
      names: as in `LanguageModel.save`.

    Raises:
      UserError: the model cannot be written in this format with these names.
    """
    total = num_bytes(dict(source.leaves))
    scheme, files = "names of this project", ["run.json", "checkpoints/0/"]
    companions = [file.name for file in Companions.of(source.origin.directory).files]
    if to == "huggingface":
        plan = plan_save(source.config, source.leaves, source.origin, SaveAs(names))
        scheme, files, total = plan.architecture.name, plan.files, plan.num_bytes
    if source.checkpoint is None or to == "orbax":
        files = [*(file for file in files if file not in companions), *companions]
    origin = source.origin.architecture
    default = ModelConfig()
    values = [
        f"{field.name}={getattr(source.config, field.name)!r}"
        for field in dataclasses.fields(default)
        if getattr(source.config, field.name) != getattr(default, field.name)
    ]
    return "\n".join(
        [
            f"from         {source.path}: {origin.name if origin else 'trained by glm_jax'}",
            *([f"adapter      {source.adapter}"] if source.adapter else []),
            f"to           {destination}: {to}, {scheme}",
            f"config       {', '.join(values)}",
            f"parameters   {sum(math.prod(leaf.shape) for leaf in source.leaves.values()):,}",
            f"quantised    {_about_quantised(source)}",
            f"bytes        {total:,}",
            f"files        {', '.join(files)}",
        ]
    )


def _about_quantised(source: Source) -> str:
    """Which matrices are quantised, in words: "int4, 14 of 16 matrices, a scale per output"."""
    matrices = [path for path in source.leaves if path.endswith("/kernel") or path in TABLES]
    found = list(quantised_in(dict(source.leaves)))
    if not found:
        return "no"
    bits = " and ".join(f"int{number}" for number in sorted({node.bits for node in found}))
    grouped = max(node.num_groups for node in found) > 1
    scales = "a scale per group of inputs" if grouped else "a scale per output"
    return f"{bits}, {len(found)} of {len(matrices)} matrices, {scales}"


def rewrite(
    source: Source, destination: Path, names: str = "as_loaded", progress: Progress = silent
) -> None:
    """Writes one Hugging Face directory as another, with only a few tensors in memory at a time.

    Args:
      source: from `look`, of a Hugging Face directory.
      destination, progress: as in `save_directory`.
      names: as in `SaveAs`.

    Raises:
      UserError: the model cannot be written with these names, or `destination` holds something
        else.
      ValueError: `source` is not a Hugging Face directory.
    """
    checkpoint = source.checkpoint
    if checkpoint is None:
        raise ValueError(f"{source.path} is not a Hugging Face directory")
    plan = plan_save(source.config, source.leaves, source.origin, SaveAs(names))
    for row in checkpoint.rows:
        if row.repeats:
            check_repeated(checkpoint, row)
    homes = {path: row for row in checkpoint.rows if not row.repeats for path in row.paths}

    def leaf(path: str) -> np.ndarray:
        row = homes[path]
        return row.split(checkpoint.tensor(row).read())[row.paths.index(path)]

    write_directory(destination, plan, leaf, progress=progress)
