"""The training loop: `train(config, workdir, ...)`.

Order on resuming: 1. the newest checkpoint that is whole (parameters, optimizer, step), or the one
of `Rewind`; 2. the row stream is set to where it stood after that step; 3. rows of metrics.jsonl
after that step are removed; 4. dropout needs nothing, its keys are a function of seed and step. So
N steps, and k steps and a kill and N - k steps, give the same losses and parameters to the last
bit.
"""

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.data.identity import fingerprints
from glm_jax.errors import UserError
from glm_jax.sharding import batch_sharding, make_mesh
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.compiling import compile_train_step
from glm_jax.training.data_record import check_checkpoint, check_data, record_data
from glm_jax.training.disk import DiskTrouble, disk_trouble
from glm_jax.training.evaluation import Evaluator, evaluation_line
from glm_jax.training.feed import Fed, Feed, to_devices
from glm_jax.training.interrupts import Interrupts
from glm_jax.training.metrics import MetricsLog, data_shares
from glm_jax.training.optimizer import learning_rate_schedule
from glm_jax.training.pace import Pace
from glm_jax.training.plot import plot_losses
from glm_jax.training.profiling import ProfiledSteps, Profiler
from glm_jax.training.rewind import (
    Rewind,
    SkippingStream,
    check_rewind,
    merged,
    move_later,
    read_skips,
    write_skips,
)
from glm_jax.training.samples import Sampler, choose_texts
from glm_jax.training.state import create_state
from glm_jax.training.step import Metrics
from glm_jax.training.summary import summary
from glm_jax.training.tracking import check_trackers, open_trackers
from glm_jax.training.unigram import target_counts
from glm_jax.training.workdir import check_config, check_workdir, record_run

# batches(split, shard_index, num_shards) -> RowStream, see glm_jax.pipeline.batches.
Batches = Callable[[str, int, int], Any]


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is no longer finite."""


DISK_STATUS = 3


def train(
    config: Config,
    workdir: str | Path,
    batches: Batches,
    tokenizer: Any,
    params: Any = None,
    rewind: Rewind | None = None,
    profile: ProfiledSteps | None = None,
) -> int:
    """Trains, or goes on with the run in `workdir`.

    Args:
      config: of the run.
      workdir: made where it is missing; see `glm_jax.training.workdir` for what it holds.
      batches: opens the row stream of a split for one host of several.
      tokenizer: of the data; kept in the workdir, and decodes the samples.
      params: what a new run starts from, see `starting_point`; None: drawn.
      rewind: None to go on from the newest checkpoint.
      profile: steps to be traced into `workdir/profile`.

    Returns:
      The exit status: 0 done, 1 the loss diverged, 3 the disk is full or cannot be written, 143 or
      130 stopped by SIGTERM or SIGINT with a checkpoint saved.

    Raises:
      ValueError: a config that cannot run here, or a workdir of another config; nothing is
        written then.
    """
    workdir = Path(workdir)
    mesh = make_mesh(config.mesh)
    check_config(config, mesh, tokenizer.vocab_size, jax.process_count())
    check_trackers(config)
    check_workdir(workdir, config)
    check_rewind(workdir, rewind)
    checkpoints = Checkpoints(workdir / "checkpoints", config, mesh)
    newest = max(checkpoints.steps(), default=0) if rewind is None else rewind.step
    if newest >= config.train.num_steps:
        _say(f"{workdir} is finished: it has a checkpoint of step {newest}")
        return 0
    with ExitStack() as stack:
        stack.callback(checkpoints.close)
        run = _Run(config, workdir, checkpoints, mesh, stack)
        try:
            run.prepare(batches, tokenizer, params, rewind)
            return run.train(profile)
        except TrainingDiverged as error:
            return _ended(str(error), checkpoints, 1)
        except DiskTrouble as error:
            return _ended(str(error), checkpoints, DISK_STATUS)
        except OSError as error:
            reason = disk_trouble(error)
            if reason is None:
                raise
            where = str(error.filename or workdir)
            return _ended(f"{where!r} cannot be used: {reason}", checkpoints, DISK_STATUS)


def _ended(why: str, checkpoints: Checkpoints, status: int) -> int:
    with suppress(DiskTrouble):
        checkpoints.wait()
    steps = checkpoints.steps()
    kept = f"the newest checkpoint is that of step {steps[-1]}" if steps else "none is saved"
    print(f"error: {why}; {kept}", file=sys.stderr)
    return status


class _Run:
    """One process of a run, from its first step to its last.

    Everything that may refuse the config comes before the first write.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        checkpoints: Checkpoints,
        mesh: Mesh,
        stack: ExitStack,
    ):
        self.config, self.workdir, self.checkpoints = config, workdir, checkpoints
        self.mesh, self.stack = mesh, stack
        self.writes = jax.process_index() == 0
        # The metrics of the step that was logged last, which its checkpoint is compared by.
        self.measured: tuple[int, dict[str, float]] = (0, {})

    def prepare(self, batches: Batches, tokenizer: Any, params: Any, rewind: Rewind | None) -> None:
        """Everything before the first step."""
        config, workdir = self.config, self.workdir
        share = (jax.process_index(), jax.process_count())
        stream = SkippingStream(batches("train", *share), read_skips(workdir))
        held_out = _take(batches("eval", *share), config.train.eval_batches)
        change = check_data(workdir, stream.data, tokenizer, config.train.accept_data_change)
        self.checkpoints.data = fingerprints(stream.data)
        if self.writes:
            try:
                record_run(workdir, config, tokenizer)
            except OSError as error:
                raise UserError(
                    f"the workdir {str(workdir)!r} cannot be written: {error.strerror or error}"
                ) from error
        stream, start = self._start(stream, params, rewind)
        self.first_step = int(self.state.step)
        if self.writes:
            record_data(workdir, stream.data, tokenizer, self.first_step, change)
        if change is not None:
            start += f", with other data: {change}"
        _say(summary(config, self.mesh, stream.builder.num_rows, start))
        sharding = batch_sharding(self.mesh)
        self.evaluator = Evaluator(
            config,
            self.mesh,
            [to_devices(batch, sharding) for batch in held_out],
            target_counts(
                workdir / "unigram.npz", lambda: batches("train", 0, 1), config, stream.data
            ),
        )
        texts = choose_texts(held_out[0], tokenizer.special.end)
        self.sampler = Sampler(config, tokenizer, texts, workdir / "samples.txt", self.first_step)
        self.log = MetricsLog(workdir / "metrics.jsonl", self.first_step, self.writes)
        self.stack.callback(self.log.close)
        self.trackers = open_trackers(config, workdir, self.first_step) if self.writes else []
        for tracker in self.trackers:
            self.stack.callback(tracker.close)
        self.feed = Feed(stream, sharding)
        self.stack.callback(self.feed.close)
        self.pace = Pace(config.data.batch_size * config.data.sequence_length)

    def _start(
        self, stream: SkippingStream, params: Any, rewind: Rewind | None
    ) -> tuple[SkippingStream, str]:
        """Sets the state and the stream; returns the stream and a sentence on where they stand."""
        restored = self.checkpoints.restore(rewind.step if rewind else None)
        if restored is None:
            self.state = create_state(self.config, self.mesh, params)
            start = f"a new run in {self.workdir}"
            if params is not None:
                start += f", with the parameters of {self.config.train.init_from}"
            return stream, start
        self.state, position = restored
        check_checkpoint(
            self.workdir,
            self.checkpoints.restored_data,
            stream.data,
            self.config.train.accept_data_change,
        )
        stream.set_state(position)
        start = f"goes on after step {int(self.state.step)} of {self.workdir}"
        if rewind is None:
            return stream, start
        if rewind.skip_batches:
            first = int(position)
            span = (first, first + rewind.skip_batches)
            spans = merged([*read_skips(self.workdir), span])
            stream = stream.without(spans)
            start += f", without batches {span[0]} to {span[1] - 1}"
            if self.writes:
                write_skips(self.workdir, spans)
        moved = move_later(self.workdir, rewind.step) if self.writes else None
        return stream, start if moved is None else f"{start}; what came after is in {moved}"

    def train(self, profile: ProfiledSteps | None) -> int:
        """Runs the steps that are left; returns the exit status."""
        last = self.config.train.num_steps
        fed = next(self.feed)
        _say("compiling ...")
        train_step = compile_train_step(self.config, self.mesh)
        profiler = Profiler(profile if self.writes else None, self.workdir / "profile")
        self.stack.callback(profiler.close)
        self.pace.restart()
        with Interrupts() as interrupts, self._progress_bar() as bar:
            # A step's metrics are fetched when the next one is under way.
            waiting: tuple[int, Metrics, Fed] | None = None
            for step in range(self.first_step + 1, last + 1):
                if step > self.first_step + 1:
                    with self.pace.waiting():
                        fed = next(self.feed)
                profiler.before(step)
                self.state, metrics = train_step(self.state, fed.batch)
                if waiting is not None:
                    self._report(*waiting, bar)
                waiting = (step, metrics, fed)
                if traced := profiler.after(step, metrics):
                    _say(traced)
                self.checkpoints.poll()
                stopping = step < last and interrupts.stop_after(step)
                due = self._due(step, stopping)
                if due:
                    self._report(*waiting, bar)
                    waiting = None
                    self._pause_for(due, step, fed)
                if stopping:
                    self.checkpoints.wait()
                    _say(f"stopped by {interrupts.received_name}; step {step} is saved")
                    return interrupts.exit_status
        self.checkpoints.wait()
        _say(f"done: {last} steps, see {self.workdir}")
        return 0

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.config.train.num_steps,
            initial=self.first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not self.writes,
        )

    def _due(self, step: int, stopping: bool) -> list[str]:
        """What comes between this step and the next."""
        settings = self.config.train
        last = step == settings.num_steps
        due = {
            "evaluate": last or _every(settings.eval_every, step),
            "sample": last or _every(settings.sample_every, step),
            "save": last or stopping or _every(settings.checkpoint_every, step),
        }
        return [name for name, now in due.items() if now]

    def _report(self, step: int, metrics: Metrics, fed: Fed, bar: tqdm) -> None:
        """Waits for a step, and shows and logs what it gave.

        Raises:
          TrainingDiverged: its loss or gradient is not finite.
        """
        # jit sorts a dict's names; "loss" comes first to a reader.
        values = {name: float(metrics[name]) for name in sorted(metrics, key=_reading_order)}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise TrainingDiverged(
                f"loss {values['loss']:g}, gradient norm {values['grad_norm']:g} at step {step}, "
                f"learning rate {values['learning_rate']:g}"
            )
        self.pace.step_done()
        self.measured = step, values
        bar.update()
        settings = self.config.train
        if _every(settings.log_every, step) or step == settings.num_steps:
            pace = self.pace.take()
            rate = pace["tokens_per_second"]
            bar.set_postfix_str(f"loss {values['loss']:.3f}, {rate:,.0f} tokens/s")
            shares = data_shares(fed.statistics, self.config.data.sequence_length)
            self._log(step, values | pace | shares)

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.log.write(step, values)
        for tracker in self.trackers:
            tracker.write(step, values)

    def _pause_for(self, due: list[str], step: int, fed: Fed) -> None:
        self.pace.pause()
        if "evaluate" in due:
            values = self.evaluator(self.state.params)
            self._log(step, values)
            self.measured = step, self.measured[1] | values
            _say(evaluation_line(step, values))
            if self.writes:
                plot_losses(self.workdir / "metrics.jsonl", self.workdir / "loss.png")
        if "sample" in due and self.writes:
            _say(self.sampler(step, self.state.params))
        if "save" in due:
            self._save(step, fed)
        self.pace.resume()

    def _save(self, step: int, fed: Fed) -> None:
        # The step's metrics are of the parameters before it; those after it must be good too.
        loss = self.evaluator.loss_of(self.state.params, fed.batch)
        if not math.isfinite(loss):
            rate = float(
                learning_rate_schedule(self.config.optimizer, self.config.train.num_steps)(step)
            )
            raise TrainingDiverged(f"loss {loss:g} after step {step}, learning rate {rate:g}")
        metrics = {k: v for k, v in self.measured[1].items() if math.isfinite(v)}
        self.checkpoints.save(self.state, fed.stream_state, metrics)


def _take(stream: Any, count: int) -> list[Batch]:
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def _reading_order(name: str) -> tuple[bool, str]:
    return not name.startswith("loss"), name


def _every(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


def _say(text: str) -> None:
    """Prints on one host, above the progress bar."""
    if jax.process_index() == 0:
        tqdm.write(text)
