"""Checkpoints: saved while training goes on, restored onto whatever mesh there is.

    WORKDIR/checkpoints/400/params       nested dict, all that inference needs
                           /optimizer    moments and counters
                           /data         step and position of the row stream
                           /_CHECKPOINT_METADATA   with the config, so that a step can be moved

A step directory appears under its name only when it is complete; what a killed process leaves
behind has another name and is removed by the next run.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from glm_jax.config import Config, MeshConfig, ModelConfig, from_dict, to_dict, to_json
from glm_jax.errors import UserError
from glm_jax.interop.directories import replaced_directory
from glm_jax.models.params import abstract_params, is_stacked, stack_layers, unstack_layers
from glm_jax.models.transformer import uses_scan
from glm_jax.sharding import make_mesh
from glm_jax.training.state import (
    TrainState,
    abstract_state,
    opt_state_from_dict,
    opt_state_to_dict,
)

_LOG = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(self, directory: Path, config: Config, mesh: Mesh):
        """Nothing is touched before the first `save` or `restore`.

        Args:
          directory: created with the first save.
          config: of the run; its model decides the shapes.
          mesh: where restored arrays go.
        """
        self._directory = Path(directory).absolute()
        self._config = config
        self._mesh = mesh
        self._opened: Any = None

    def _open(self) -> Any:
        if self._opened is None:
            training = ocp.training
            keep = self._config.train.keep_checkpoints
            self._opened = training.Checkpointer(
                self._directory,
                save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )
        return self._opened

    def steps(self) -> list[int]:
        """Complete steps, ascending."""
        return saved_steps(self._directory)

    def save(self, state: TrainState, stream_state: bytes) -> None:
        """Starts to save a state and returns before it is written; `state` may be donated at once.

        Args:
          state: saved under its own step.
          stream_state: `RowStream.get_state()` after the step's batch.
        """
        step = int(state.step)
        items = own_copy({"params": state.params, "optimizer": opt_state_to_dict(state.opt_state)})
        items["data"] = {"step": step, "stream": stream_state.hex()}
        about = {"config": to_dict(self._config), "stacked": uses_scan(self._config.model)}
        self._open().save_checkpointables_async(step, items, force=True, custom_metadata=about)

    def restore(self) -> tuple[TrainState, bytes] | None:
        """Restores the newest step that can be read, on the mesh.

        Steps that cannot be read are left under the name damaged-STEP if an older one can.

        Returns:
          The state and the row stream's state; None where nothing was saved yet.

        Raises:
          ValueError: there are checkpoints, but none can be read.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                restored = self._restore(step)
            except Exception as error:
                _LOG.warning("checkpoint %d cannot be read: %s", step, _first_line(error))
                damaged.append(step)
                continue
            self._set_aside(damaged)
            return restored
        if damaged:
            raise UserError(f"none of the checkpoints {damaged} in {self._directory} can be read")
        return None

    def _restore(self, step: int) -> tuple[TrainState, bytes]:
        checkpointer = self._open()
        about = checkpointer.checkpointables_metadata(step).custom_metadata
        saved = _with_layout(self._config, about["stacked"])
        like = abstract_state(saved, self._mesh)
        items = checkpointer.load_checkpointables(
            step,
            {"params": like.params, "optimizer": opt_state_to_dict(like.opt_state), "data": None},
        )
        state = TrainState(
            jax.device_put(jnp.int32(items["data"]["step"]), like.step.sharding),
            items["params"],
            opt_state_from_dict(like.opt_state, items["optimizer"]),
        )
        if about["stacked"] != uses_scan(self._config.model):
            wanted = abstract_state(self._config, self._mesh)
            structure = jax.tree.structure(state.params)
            state = _convert(state, wanted, structure, not about["stacked"])
        return state, bytes.fromhex(items["data"]["stream"])

    def _set_aside(self, damaged: list[int]) -> None:
        if not damaged:
            return
        # Orbax must not count them among the newest that stay.
        self.close()
        if jax.process_index() == 0:
            for step in damaged:
                (self._directory / str(step)).rename(self._directory / f"damaged-{step}")

    def wait(self) -> None:
        """Returns when all that was asked for is on disk; raises what went wrong."""
        if self._opened is not None:
            self._opened.wait()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def saved_steps(directory: Path) -> list[int]:
    """Complete steps in a directory of checkpoints, ascending."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def load_params(
    path: str | Path,
    config: Config | None = None,
    mesh: Mesh | None = None,
    step: int | None = None,
) -> tuple[Config, Any]:
    """Loads the parameters alone.

    Args:
      path: a workdir, or a step directory in its `checkpoints`.
      config: None for the config the checkpoint was saved with; its `model.scan_layers` decides
        whether the layers come stacked or listed.
      mesh: None for the first device alone.
      step: None for the newest; only with a workdir.

    Returns:
      The config and the nested dict of parameters.

    Raises:
      ValueError: no checkpoint there, or not of that step.
    """
    step_directory = _find_step(Path(path).absolute(), step)
    about = ocp.checkpointables_metadata(step_directory).custom_metadata
    config = config or from_dict(about["config"])
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    like = abstract_params(_with_layout(config, about["stacked"]).model, mesh)
    params = ocp.load_checkpointables(step_directory, {"params": like})["params"]
    if about["stacked"] != uses_scan(config.model):
        wanted = abstract_params(config.model, mesh)
        params = _convert(params, wanted, jax.tree.structure(params), not about["stacked"])
    return config, params


def save_params(path: str | Path, config: ModelConfig, params: Any, tokenizer: Any = None) -> None:
    """Writes parameters alone, all or nothing, as a workdir that `load_params` reads.

    Args:
      path: a directory to be made; one that an earlier call wrote is replaced.
      config: of the model.
      params: stacked or listed, on any devices.
      tokenizer: None or what to keep beside them.

    Raises:
      ValueError: `path` holds something else.
    """
    run = Config(model=config)
    about = {"config": to_dict(run), "stacked": is_stacked(params)}
    with replaced_directory(Path(path).absolute(), _holds_only_params) as directory:
        (directory / "run.json").write_text(to_json(run), encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(directory)
        ocp.save_checkpointables(
            directory / "checkpoints" / "0", {"params": params}, custom_metadata=about
        )


def _holds_only_params(path: Path) -> bool:
    steps = path / "checkpoints"
    return {file.name for file in path.iterdir()} <= {
        "run.json",
        "tokenizer.model",
        steps.name,
    } and (
        [step.name for step in steps.glob("*")] == ["0"]
        and not (steps / "0" / "optimizer").exists()
    )


def _find_step(path: Path, step: int | None) -> Path:
    if (path / "params").is_dir() and path.name.isdecimal():
        return path
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    steps = saved_steps(directory)
    if not steps:
        raise UserError(f"no checkpoint in {str(path)!r}")
    if step is not None and step not in steps:
        raise UserError(f"no checkpoint of step {step} in {str(path)!r}; there are {steps}")
    return directory / str(steps[-1] if step is None else step)


def own_copy(tree: Any) -> Any:
    """A copy that shares no memory with `tree`, where saving would share it.

    On CPU an array's "transfer" to the host is the array's own memory: the writer would read what
    the next step, to which the state is donated, writes there.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(jnp.copy, tree)


def _with_layout(config: Config, stacked: bool) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, scan_layers=stacked))


def _convert(tree: Any, like: Any, params_structure: Any, stack: bool) -> Any:
    """Stacks or lists the layers wherever `tree` holds a tree shaped as the parameters.

    Args:
      tree: parameters, or a state with parameters and moments.
      like: abstract arrays in the wanted layout, for their shardings.
      params_structure: tree structure of the parameters in the present layout.
      stack: whether to stack or to list.
    """

    def is_params(node: Any) -> bool:
        return jax.tree.structure(node) == params_structure

    change = stack_layers if stack else unstack_layers

    def convert(tree: Any) -> Any:
        return jax.tree.map(
            lambda node: change(node) if is_params(node) else node, tree, is_leaf=is_params
        )

    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    return jax.jit(convert, out_shardings=shardings)(tree)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]
