"""What a conversion will read and write, said before it happens; and one that loads nothing."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from glm_jax.checkpoints.finding import RUN, find_workdir
from glm_jax.checkpoints.params import holds_only_params
from glm_jax.config.files import read_run
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.files import check_replaceable
from glm_jax.interop.checkpoint import Checkpoint, Origin, check_repeated, open_directory
from glm_jax.interop.companions import Companions
from glm_jax.interop.huggingface import Progress, silent, write_directory
from glm_jax.interop.save_plan import is_model, plan_save
from glm_jax.models.params import abstract_params, to_paths

# Fields of ModelConfig that say how it runs, not what it is.
_RUNNING = {"compute_dtype", "scan_layers", "remat", "attention_backend"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that was looked at, not loaded.

    Attributes:
      path: its directory.
      config: its shape.
      leaves: shape and dtype of each parameter, layers listed.
      checkpoint: of a Hugging Face directory; None for a model that was trained here.
      workdir: of a model that was trained here.
    """

    path: Path
    config: ModelConfig
    leaves: Mapping[str, jax.ShapeDtypeStruct]
    checkpoint: Checkpoint | None
    workdir: Path | None = None

    @property
    def origin(self) -> Origin:
        """Of a model that was trained here, the files beside it alone."""
        return self.checkpoint.origin if self.checkpoint else Origin(directory=self.workdir)


def look(path: Path, dtype: str | None, mesh: Mesh) -> Source:
    """Looks at a model.

    Args:
      path: a Hugging Face directory, a workdir, or one of its checkpoints.
      dtype: that the parameters will get; None: those they have.
      mesh: any; shapes do not depend on it.

    Raises:
      UserError: nothing there, or what is there cannot be used.
    """
    workdir = find_workdir(path)
    stored: dict[str, Any] = {}
    checkpoint = None
    if workdir is None:
        checkpoint = open_directory(path)
        config = checkpoint.config
        for row in checkpoint.rows:
            stored.update(dict.fromkeys(row.paths, checkpoint.tensor(row).dtype))
    else:
        config = read_run(workdir / RUN)[0].model
    config = dataclasses.replace(config, param_dtype=dtype or config.param_dtype)
    shapes = to_paths(abstract_params(dataclasses.replace(config, scan_layers=False), mesh))
    leaves = {
        name: jax.ShapeDtypeStruct(leaf.shape, dtype or stored.get(name, leaf.dtype))
        for name, leaf in shapes.items()
    }
    return Source(path, config, leaves, checkpoint, workdir)


def check_apart(source: Path, destination: Path) -> None:
    """Refuses to write a model over the one that is read, or over a directory that holds it.

    Raises:
      UserError: links followed, `source` is `destination` or lies in it.
    """
    # Not `resolve`, for which a ring of links is an error of another kind.
    if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(destination)):
        raise UserError(
            f"{str(destination)!r} is or holds {str(source)!r}, from which the model is read; give "
            "another directory"
        )


def check_target(path: Path, to: str) -> None:
    """Refuses a directory that `LanguageModel.save` would refuse, before anything is loaded.

    Args:
      path: where the model will be written.
      to: "huggingface" or "orbax".
    """
    if to == "huggingface":
        check_replaceable(path, is_model)
        return
    check_replaceable(path, holds_only_params)


def describe(source: Source, destination: Path, to: str, names: str) -> str:
    """Architecture, config, parameters, bytes and files of a conversion, in lines for people.

    Args:
      source: by `look`.
      destination: the directory that will be made.
      to: "huggingface" or "orbax".
      names: as of `LanguageModel.save`.

    Raises:
      UserError: the model cannot be written so.
    """
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in source.leaves.values())
    scheme, files = "names of this project", ["run.json", "checkpoints/0/"]
    companions = [file.name for file in Companions.of(source.origin.directory).files]
    if to == "huggingface":
        plan = plan_save(source.config, source.leaves, source.origin, names)
        scheme, files, num_bytes = plan.architecture.name, plan.files, plan.num_bytes
    if source.checkpoint is None or to == "orbax":
        files = [*(file for file in files if file not in companions), *companions]
    origin = source.origin.architecture
    default = ModelConfig()
    values = [
        f"{field.name}={getattr(source.config, field.name)!r}"
        for field in dataclasses.fields(default)
        if field.name not in _RUNNING
        and getattr(source.config, field.name) != getattr(default, field.name)
    ]
    return "\n".join(
        [
            f"from         {source.path}: {origin.name if origin else 'trained by glm_jax'}",
            f"to           {destination}: {to}, {scheme}",
            f"config       {', '.join(values)}",
            f"parameters   {sum(leaf.size for leaf in source.leaves.values()):,}",
            f"bytes        {num_bytes:,}",
            f"files        {', '.join(files)}",
        ]
    )


def rewrite(
    source: Source, destination: Path, names: str = "as_loaded", progress: Progress = silent
) -> None:
    """Writes one Hugging Face directory as another; no more than a few tensors are in memory.

    Args:
      source: by `look`, of a Hugging Face directory.
      destination, names, progress: as of `save_directory`.

    Raises:
      UserError: the model cannot be written so, or `destination` holds something else.
    """
    checkpoint = source.checkpoint
    if checkpoint is None:
        raise ValueError(f"{source.path} is not a Hugging Face directory")
    plan = plan_save(source.config, source.leaves, source.origin, names)
    for row in checkpoint.rows:
        if row.repeats:
            check_repeated(checkpoint, row)
    homes = {path: row for row in checkpoint.rows if not row.repeats for path in row.paths}

    def leaf(path: str) -> np.ndarray:
        row = homes[path]
        return row.split(checkpoint.tensor(row).read())[row.paths.index(path)]

    write_directory(destination, plan, leaf, progress=progress)
