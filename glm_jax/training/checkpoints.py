"""Checkpoints: saved asynchronously during training, restored onto any mesh.

    WORKDIR/checkpoints/400/params       nested dict, all that inference needs; over a frozen model
                                         of `train.init_from` the trained part alone
                           /optimizer    moments and counters
                           /data         step and state of the row stream
                           /_CHECKPOINT_METADATA   with the config, so that a step can be moved
                           /manifest.json          checksums, written last

Only complete steps are restored. What a killed process leaves behind has another name or no
manifest, and is ignored. If the files of a step do not match their checksums, the step before it is
restored.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from glm_jax.adapters.held import split_held
from glm_jax.checkpoints.base import Base
from glm_jax.checkpoints.checksums import checksums, damage, size_of, write_manifest
from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble, probe, reason
from glm_jax.checkpoints.held_back import HeldBack, collect
from glm_jax.checkpoints.layouts import (
    by_arrays,
    from_arrays_like,
    own_copy,
    with_stacked_layers,
)
from glm_jax.checkpoints.reading import by_first_replica, has_far_replicas
from glm_jax.checkpoints.retention import (
    check_names,
    remove_failed_save,
    remove_left_overs,
    remove_others,
    saved_steps,
    set_aside,
    unfinished_steps,
)
from glm_jax.config import Config, to_dict
from glm_jax.errors import UserError
from glm_jax.models.trees import Params
from glm_jax.paths import expanded
from glm_jax.training import failures
from glm_jax.training.distributed import any_of, is_first, on_all, share
from glm_jax.training.failures import FailedElsewhere
from glm_jax.training.state import (
    abstract_state,
    opt_state_from_dict,
    opt_state_to_dict,
)
from glm_jax.training.train_state import TrainState

_LOG = logging.getLogger(__name__)
# Bytes from which on checking takes seconds, and a line announces it.
_ANNOUNCED = 1 << 30


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(self, directory: Path, config: Config, mesh: Mesh):
        """Touches nothing on disk before the first `save` or `restore`.

        Args:
          directory: created by the first save.
          config: of the run; its model determines the shapes.
          mesh: onto which arrays are restored.
        """
        self._directory = expanded(directory).absolute()
        self._config = config
        self._mesh = mesh
        self._writes = is_first()
        # Only what was verified: a process that meets damage alone would leave the others waiting.
        self._reads_once = config.train.verify_checkpoints and has_far_replicas(mesh)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, Future[None]] | None = None
        # Fingerprints of the data, by source: those saved with new steps, and of the restored step.
        self.data: Mapping[str, str] = {}
        self.restored_data: Mapping[str, str] | None = None
        # Of a run that does not train all: the model that it began with, and what is frozen of it.
        # Steps then hold the trained part alone.
        self.base: Base | None = None
        self.frozen: Params = {}
        # Holds log records of a save from its start until `wait`.
        self._held_back = ExitStack()

    def steps(self) -> list[int]:
        """Complete steps, ascending."""
        return saved_steps(self._directory)

    def save(
        self, state: TrainState, stream_state: bytes, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts to save a state and returns before it is written; `state` may be donated at once.

        Args:
          state: saved under `state.step`.
          stream_state: `RowStream.get_state()` after the step's batch.
          metrics: of the step, for `train.keep_best`.

        Raises:
          DiskTrouble: this save or the previous one cannot be written; older steps stay.
        """
        self.wait()
        step = int(state.step)
        failure: OSError | None = None
        try:
            if self._writes:
                probe(self._directory)
        except OSError as error:
            failure = error
        if any_of(failure is not None):
            raise self._not_written(step, failure) from failure
        params = state.params if self.base is None else by_arrays(state.trainable)
        items = own_copy({"params": params, "optimizer": opt_state_to_dict(state.opt_state)})
        items["data"] = {"step": step, "stream": stream_state.hex()}
        about = {
            "config": to_dict(self._config),
            "stacked": True,
            "manifest": True,
            "data": dict(self.data),
        }
        if self.base is not None:
            about["base"] = dataclasses.asdict(self.base)
        self._held_back.enter_context(HeldBack(self._directory / str(step)))
        response = ocp.save_checkpointables_async(
            str(self._directory / str(step)), items, custom_metadata=about
        )
        self._saving = step, self._pool.submit(self._finish, response.result, step, metrics or {})

    def _finish(self, written: Callable[[], None], step: int, metrics: Mapping[str, float]) -> None:
        """Each process hashes what it wrote; the first one writes the manifest of all."""
        written()
        directory = self._directory / str(step)
        made = on_all(
            "checksums",
            lambda: json.dumps(checksums(directory, *share())),
            f"read back what it wrote of checkpoint {step}",
        )

        def complete() -> str:
            if self._writes:
                known = {name: file for part in made for name, file in json.loads(part).items()}
                write_manifest(directory, metrics, known)
                remove_others(self._directory, self._config.train)
            return ""

        on_all("manifest", complete, f"complete checkpoint {step}")

    def restore(self, step: int | None = None) -> tuple[TrainState, bytes] | None:
        """Restores a step onto the mesh.

        Unfinished steps are renamed to unfinished-STEP. Steps whose files do not match their
        checksums are renamed to damaged-STEP if an older step is intact. Any other failure does not
        mean that the step is damaged, and is raised.

        Args:
          step: one of `steps()`; None: the newest intact step.

        Returns:
          The state and the row stream's state; None if nothing was saved yet.

        Raises:
          UserError: there are checkpoints but none is intact, or the given one is not; or a
            directory has the name of another step.
          DiskTrouble: the disk cannot be read.
        """
        check_names(self._directory)
        if self._writes:
            self._clear()
        damaged: dict[int, str] = {}
        for candidate in reversed(self.steps()) if step is None else [step]:
            restored = self._restore_whole(candidate)
            if isinstance(restored, str):
                damaged[candidate] = restored
                continue
            for one, trouble in damaged.items() if self._writes else ():
                aside = set_aside(self._directory, one, "damaged")
                _LOG.warning("checkpoint %d cannot be read: %s; it is now %s", one, trouble, aside)
            return restored
        if damaged:
            raise UserError(
                f"none of the checkpoints {list(damaged)} in {str(self._directory)!r} can be read: "
                + "; ".join(damaged.values())
            )
        return None

    def _clear(self) -> None:
        remove_left_overs(self._directory)
        for step in unfinished_steps(self._directory):
            aside = set_aside(self._directory, step, "unfinished")
            _LOG.warning("checkpoint %d was not finished; it is now %s", step, aside.name)

    def _restore_whole(self, step: int) -> tuple[TrainState, bytes] | str:
        """The restored step, or what is wrong with its files; every host gets the same kind."""
        verified = self._config.train.verify_checkpoints
        if trouble := self._damage(step, verified):
            return trouble
        failure: Exception | None = None
        try:
            with HeldBack(self._directory / str(step)):
                restored = self._restore(step)
        except Exception as error:
            failure = error
        if failure is not None and failures.listening():
            # The others wait inside orbax, and come to no agreement: they are ended.
            raise self._unread(step, failure, verified)
        # In a broadcast the others wait for what this process reads, not for an agreement.
        alone = failure is not None
        if not (alone if self._reads_once else any_of(alone)):
            return restored
        if not verified and (trouble := self._damage(step, True)):
            failure = None  # its traceback keeps unfinished reads alive
            collect()
            return trouble
        if failure is None:
            raise FailedElsewhere(f"another process could not read checkpoint {step}, and says why")
        raise self._unread(step, failure, verified=True)

    def _unread(self, step: int, failure: Exception, verified: bool) -> Exception:
        """What to raise for a step that this process could not read."""
        unread = f"checkpoint {step} cannot be read"
        if disk_trouble(failure) is not None:
            error: Exception = DiskTrouble(f"{unread}: {reason(failure)}")
        elif not verified and (trouble := damage(self._directory / str(step), read=True)):
            error = UserError(f"{unread}: {trouble}; train.verify_checkpoints=true goes back")
        else:
            return failure
        error.__cause__ = failure
        return error

    def _damage(self, step: int, read: bool) -> str | None:
        """What is wrong with a step's files, or None; each process reads its share.

        Args:
          step: which step.
          read: compare its files with their checksums; False: with their sizes only.

        Raises:
          DiskTrouble: on every process, if one cannot read the files.
        """
        directory = self._directory / str(step)

        def find() -> str:
            if self._writes and read and (size := size_of(directory)) > _ANNOUNCED:
                print(
                    f"checking {size / 2**30:.1f} GiB of checkpoint {step} "
                    "(train.verify_checkpoints=False reads them once only) ...",
                    flush=True,
                )
            return damage(directory, read=read, share=share()) or ""

        found = on_all("damage", find, f"read checkpoint {step}")
        return next(filter(None, found), None)

    def _restore(self, step: int) -> tuple[TrainState, bytes]:
        directory = self._directory / str(step)
        about = ocp.checkpointables_metadata(str(directory)).custom_metadata
        self.restored_data = about.get("data")
        like = abstract_state(self._config, self._mesh, listed=not about["stacked"])
        alone = "base" in about
        if alone:
            self._check_base(Base.recorded(about["base"]), step)
        with by_first_replica() if self._reads_once else nullcontext():
            items = ocp.load_checkpointables(
                str(directory),
                {
                    "params": by_arrays(like.trainable) if alone else like.params,
                    "optimizer": opt_state_to_dict(like.opt_state),
                    "data": None,
                },
            )
        if items["data"]["step"] != step:
            raise UserError(
                f"{str(directory)!r} holds the checkpoint of step {items['data']['step']}; "
                "rename it"
            )
        params = items["params"]
        opt_state = opt_state_from_dict(like.opt_state, items["optimizer"])
        if not about["stacked"]:
            wanted = abstract_state(self._config, self._mesh)
            moments = jax.tree.structure(like.trainable)
            opt_state = with_stacked_layers(opt_state, wanted.opt_state, moments)
            params = with_stacked_layers(params, wanted.params, jax.tree.structure(params))
        if alone:
            trainable, frozen = from_arrays_like(like.trainable, params), self.frozen
        else:
            trainable, frozen = split_held(self._config, params)
        step_array = jax.device_put(jnp.int32(step), like.step.sharding)
        state = TrainState(step_array, trainable, frozen, opt_state)
        return state, bytes.fromhex(items["data"]["stream"])

    def _check_base(self, recorded: Base, step: int) -> None:
        if self.base is None:
            raise UserError(
                f"checkpoint {step} holds what was trained over {recorded.name!r} alone, and "
                "train.init_from was not read"
            )
        recorded.check(self.frozen, self.base.name)

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          DiskTrouble: the save could not be written; its remains are removed.
        """
        if self._saving is None:
            return
        step, saving = self._saving
        self._saving = None
        try:
            with self._held_back.pop_all():
                saving.result()
        except Exception as error:
            if disk_trouble(error) is None:
                raise
            raise self._not_written(step, error) from error

    def poll(self) -> None:
        """Raises the error of a save that has failed by now; does not wait."""
        if self._saving is not None and self._saving[1].done():
            self.wait()

    def close(self) -> None:
        """Waits for the last save and ends the thread; a failed save is only logged."""
        try:
            self.wait()
        except DiskTrouble as error:
            _LOG.warning("%s", error)
        self._held_back.close()
        self._pool.shutdown()

    def _not_written(self, step: int, error: Exception | None) -> DiskTrouble:
        if self._writes:
            # Frees what the failed save took of a full disk.
            remove_failed_save(self._directory)
        why = reason(error) if error else "the first process cannot write it, and says why"
        return DiskTrouble(f"checkpoint {step} could not be written: {why}")
