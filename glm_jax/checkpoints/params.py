"""Reads parameters, without the optimizer, from a run or a step; writes them as a workdir."""

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh, NamedSharding
from orbax.checkpoint import v1 as ocp

from glm_jax.adapters.held import abstract_held, split_held
from glm_jax.adapters.low_rank import merged
from glm_jax.adapters.quantised import AnyQuantised, arrays_by_name, quantised
from glm_jax.checkpoints.base import Base
from glm_jax.checkpoints.checksums import damage, write_manifest
from glm_jax.checkpoints.disk import DiskTrouble
from glm_jax.checkpoints.held_back import HeldBack
from glm_jax.checkpoints.layouts import About, by_arrays, from_arrays_like
from glm_jax.checkpoints.retention import check_name, check_names, saved_steps
from glm_jax.config import Config, from_dict, to_dict, to_json
from glm_jax.config.model import ModelConfig
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError
from glm_jax.files import replaced_directory
from glm_jax.interop.companions import COMPANIONS, keep_companions
from glm_jax.interop.origin import Origin
from glm_jax.models.params import abstract_params
from glm_jax.models.trees import Params, from_paths, is_stacked, to_paths
from glm_jax.paths import expanded
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.protocol import Tokenizer


@dataclasses.dataclass(frozen=True)
class Saved:
    """The parameters of a step.

    Attributes:
      config: of the run.
      params: nested dict, layers as they were saved; with a `base` the trained part alone, in which
        an adapter has no arrays for its base (`glm_jax.adapters.held.with_trained`).
      base: the model that the others are of; None: there are no others.
    """

    config: Config
    params: Params
    base: Base | None


def load_params(
    path: str | Path,
    config: Config | None = None,
    mesh: Mesh | None = None,
    step: int | None = None,
) -> tuple[Config, Params]:
    """Loads the parameters alone; the optimizer's state is not read.

    Args:
      path: a workdir, or a step directory in its `checkpoints`.
      config: None for the config that the checkpoint was saved with.
      mesh: None for the first device alone.
      step: None for the newest; ignored if `path` is a step directory.

    Returns:
      The config and the nested dict of parameters, layers as they were saved (`is_stacked`).

    Raises:
      ValueError: there is no checkpoint, or not of that step, or its files do not match its
        manifest (checksums are compared if `train.verify_checkpoints` is True, else sizes alone);
        or it holds the trained part alone.
    """
    saved = load_saved(path, config, mesh, step)
    if saved.base is not None:
        raise UserError(
            f"{str(path)!r} holds what was trained over {saved.base.name!r} alone; glm_jax.load "
            "reads both"
        )
    return saved.config, saved.params


def load_saved(
    path: str | Path,
    config: Config | None = None,
    mesh: Mesh | None = None,
    step: int | None = None,
) -> Saved:
    """`load_params` for any step, also one that holds the trained part alone."""
    step_directory = _find_step(expanded(path).absolute(), step)
    about = _about(step_directory, config is None or config.train.verify_checkpoints)
    config = config or from_dict(about["config"])
    _refuse_damage(step_directory, "params", config.train.verify_checkpoints)
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    kind, listed = config.train.weights, not about["stacked"]
    shapes = abstract_params(config.resolved_model, mesh, kind, listed=listed)
    like = abstract_held(config, shapes)
    recorded = about.get("base")
    if recorded is not None:
        like, _ = split_held(config, like)
    elif kind == "plain" and not config.lora.rank:
        like = _with_quantised(like, step_directory)
    asked = like if recorded is None else by_arrays(like)
    with HeldBack(step_directory):
        params = ocp.load_checkpointables(str(step_directory), {"params": asked})["params"]
    if recorded is None:
        return Saved(config, params, None)
    return Saved(config, from_arrays_like(like, params), Base.recorded(recorded))


def base_of(path: str | Path) -> Base | None:
    """The base of a step, or of the newest of a workdir; None if it holds all parameters."""
    recorded = _about(_find_step(expanded(path).absolute(), None), False).get("base")
    return None if recorded is None else Base.recorded(recorded)


def _about(step: Path, verify: bool) -> About:
    """The metadata that `Checkpoints.save` wrote: config, and whether layers are stacked."""
    _refuse_damage(step, "_CHECKPOINT_METADATA", verify)
    return ocp.checkpointables_metadata(str(step)).custom_metadata


def stored_quantised(path: str | Path) -> dict[str, AnyQuantised]:
    """Shapes of the quantised matrices of a step, or of the newest of a workdir, by their paths."""
    step = _find_step(expanded(path).absolute(), None)
    _refuse_damage(step, "_CHECKPOINT_METADATA", True)
    return _quantised_of(step)


def _quantised_of(step: Path) -> dict[str, AnyQuantised]:
    stored = arrays_by_name(ocp.checkpointables_metadata(str(step)).metadata.get("params", {}))
    found = {}
    for name, values in stored.items():
        matrix, _, last = name.rpartition("/")
        scale = stored.get(f"{matrix}/scale")
        if last == "values" and scale is not None:
            arrays = (jax.ShapeDtypeStruct(one.shape, one.dtype) for one in (values, scale))
            found[matrix] = quantised(matrix, *arrays)
    return found


def _with_quantised(like: Params, step: Path) -> Params:
    """`like` with those matrices quantised that are stored so."""
    leaves = to_paths(like)
    for path, node in _quantised_of(step).items():
        of_matrix = leaves[path].sharding
        leaves[path] = jax.tree.map(
            lambda array, spec, mesh=of_matrix.mesh: array.update(
                sharding=NamedSharding(mesh, spec)
            ),
            node,
            node.specs(of_matrix.spec),
        )
    return from_paths(leaves)


def _refuse_damage(step: Path, part: str, read: bool) -> None:
    try:
        trouble = damage(step, part, read)
    except DiskTrouble as error:
        raise UserError(str(error)) from error
    if trouble is not None:
        raise UserError(f"checkpoint {step.name} cannot be read: {trouble}")


def save_params(
    path: str | Path,
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer | None = None,
    origin: Origin | None = None,
) -> None:
    """Writes parameters alone, all or nothing, as a workdir that `load_params` reads.

    Args:
      path: a directory to be created; one that an earlier call wrote is replaced.
      config: of the model.
      params: stacked or listed, on any devices; adapters are merged.
      tokenizer: saved beside them; None: no tokenizer.
      origin: of a loaded model; the companion files of its directory are copied.

    Raises:
      ValueError: `path` holds something else.
    """
    run = Config(model=config, compute=config.resolved().compute)
    about = {"config": to_dict(run), "stacked": is_stacked(params)}
    with replaced_directory(expanded(path).absolute(), holds_only_params) as directory:
        (directory / "run.json").write_text(to_json(run), encoding="utf-8")
        keep_companions(directory, origin or Origin())
        if tokenizer is not None:
            tokenizer.save(directory)
        step = directory / "checkpoints" / "0"
        items = {"params": merged(params, config.param_dtype)}
        ocp.save_checkpointables(step, items, custom_metadata=about)
        write_manifest(step, {})


def holds_only_params(path: Path) -> bool:
    """Whether a directory contains only what `save_params` writes."""
    steps = path / "checkpoints"
    return {file.name for file in path.iterdir()} <= {"run.json", steps.name, *COMPANIONS} and (
        [step.name for step in steps.glob("*")] == ["0"]
        and not (steps / "0" / "optimizer").exists()
    )


def _find_step(path: Path, step: int | None) -> Path:
    if (path / "params").is_dir() and path.name.isdecimal():
        check_name(path)
        return path
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    check_names(directory)
    steps = saved_steps(directory)
    if not steps:
        raise UserError(f"no checkpoint in {str(path)!r}")
    if step is not None and step not in steps:
        raise UserError(f"no checkpoint of step {step} in {str(path)!r}; there are {steps}")
    return directory / str(steps[-1] if step is None else step)
