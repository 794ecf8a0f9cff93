"""The training loop: `train(config, workdir, ...)`.

Order on resuming: 1. the newest checkpoint that can be read (parameters, optimizer, step);
2. the row stream is set to where it stood after that step; 3. rows of metrics.jsonl after that step
are removed; 4. dropout needs nothing, its keys are a function of seed and step. So N steps, and k
steps and a kill and N - k steps, give the same losses and parameters to the last bit.
"""

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.sharding import batch_sharding, make_mesh
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.compiling import compile_train_step
from glm_jax.training.evaluation import Evaluator, evaluation_line
from glm_jax.training.feed import Fed, Feed, to_devices
from glm_jax.training.interrupts import Interrupts
from glm_jax.training.metrics import MetricsLog, Throughput, data_shares
from glm_jax.training.optimizer import learning_rate_schedule
from glm_jax.training.plot import plot_losses
from glm_jax.training.samples import Sampler, choose_texts
from glm_jax.training.state import create_state
from glm_jax.training.step import Metrics
from glm_jax.training.summary import summary
from glm_jax.training.unigram import target_counts
from glm_jax.training.workdir import check_config, check_workdir, record_run

# batches(split, shard_index, num_shards) -> RowStream, see glm_jax.pipeline.batches.
Batches = Callable[[str, int, int], Any]


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is no longer finite."""


def train(
    config: Config, workdir: str | Path, batches: Batches, tokenizer: Any, params: Any = None
) -> int:
    """Trains, or goes on with the run in `workdir`.

    Args:
      config: of the run.
      workdir: made where it is missing; see `glm_jax.training.workdir` for what it holds.
      batches: opens the row stream of a split for one host of several.
      tokenizer: of the data; kept in the workdir, and decodes the samples.
      params: what a new run starts from, see `starting_point`; None: drawn.

    Returns:
      The exit status: 0 done, 1 the loss diverged, 143 or 130 stopped by SIGTERM or SIGINT with a
      checkpoint saved.

    Raises:
      ValueError: a config that cannot run here, or a workdir of another config; nothing is
        written then.
    """
    workdir = Path(workdir)
    mesh = make_mesh(config.mesh)
    check_config(config, mesh, tokenizer.vocab_size, jax.process_count())
    check_workdir(workdir, config)
    checkpoints = Checkpoints(workdir / "checkpoints", config, mesh)
    if checkpoints.steps() and checkpoints.steps()[-1] >= config.train.num_steps:
        _say(f"{workdir} is finished: it has a checkpoint of step {checkpoints.steps()[-1]}")
        return 0
    with ExitStack() as stack:
        stack.callback(checkpoints.close)
        run = _Run(config, workdir, batches, tokenizer, checkpoints, mesh, stack, params)
        try:
            return run.train()
        except TrainingDiverged as error:
            checkpoints.wait()
            steps = checkpoints.steps()
            kept = (
                f"the newest checkpoint is that of step {steps[-1]}" if steps else "none is saved"
            )
            print(f"error: {error}; {kept}", file=sys.stderr)
            return 1


class _Run:
    """One process of a run, from its first step to its last.

    Everything that may refuse the config comes before the first write.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        batches: Batches,
        tokenizer: Any,
        checkpoints: Checkpoints,
        mesh: Mesh,
        stack: ExitStack,
        params: Any,
    ):
        self.config, self.workdir, self.checkpoints = config, workdir, checkpoints
        self.mesh = mesh
        self.writes = jax.process_index() == 0
        share = (jax.process_index(), jax.process_count())
        stream = batches("train", *share)
        held_out = _take(batches("eval", *share), config.train.eval_batches)
        if self.writes:
            record_run(workdir, config, tokenizer)
        restored = checkpoints.restore()
        if restored is None:
            self.state, start = create_state(config, mesh, params), f"a new run in {workdir}"
            if params is not None:
                start += f", with the parameters of {config.train.init_from}"
        else:
            self.state, position = restored
            stream.set_state(position)
            start = f"goes on after step {int(self.state.step)} of {workdir}"
        self.first_step = int(self.state.step)
        _say(summary(config, mesh, stream.builder.num_rows, start))
        sharding = batch_sharding(mesh)
        self.evaluator = Evaluator(
            config,
            mesh,
            [to_devices(batch, sharding) for batch in held_out],
            target_counts(workdir / "unigram.npz", lambda: batches("train", 0, 1), config),
        )
        texts = choose_texts(held_out[0], tokenizer.special.end)
        self.sampler = Sampler(config, tokenizer, texts, workdir / "samples.txt", self.first_step)
        self.log = MetricsLog(workdir / "metrics.jsonl", self.first_step, self.writes)
        stack.callback(self.log.close)
        self.feed = Feed(stream, sharding)
        stack.callback(self.feed.close)
        self.throughput = Throughput()

    def train(self) -> int:
        """Runs the steps that are left; returns the exit status."""
        last = self.config.train.num_steps
        fed = next(self.feed)
        _say("compiling ...")
        train_step = compile_train_step(self.config, self.mesh)
        self.throughput.restart()
        with Interrupts() as interrupts, self._progress_bar() as bar:
            # A step's metrics are fetched when the next one is under way.
            waiting: tuple[int, Metrics, Fed] | None = None
            for step in range(self.first_step + 1, last + 1):
                if step > self.first_step + 1:
                    fed = next(self.feed)
                self.state, metrics = train_step(self.state, fed.batch)
                if waiting is not None:
                    self._report(*waiting, bar)
                waiting = (step, metrics, fed)
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
        data = self.config.data
        self.throughput.add(data.batch_size * data.sequence_length)
        bar.update()
        settings = self.config.train
        if _every(settings.log_every, step) or step == settings.num_steps:
            values["tokens_per_second"] = rate = self.throughput.take()
            bar.set_postfix_str(f"loss {values['loss']:.3f}, {rate:,.0f} tokens/s")
            self.log.write(step, values | data_shares(fed.statistics, data.sequence_length))

    def _pause_for(self, due: list[str], step: int, fed: Fed) -> None:
        self.throughput.pause()
        if "evaluate" in due:
            values = self.evaluator(self.state.params)
            self.log.write(step, values)
            _say(evaluation_line(step, values))
            if self.writes:
                plot_losses(self.workdir / "metrics.jsonl", self.workdir / "loss.png")
        if "sample" in due and self.writes:
            _say(self.sampler(step, self.state.params))
        if "save" in due:
            self._save(step, fed)
        self.throughput.resume()

    def _save(self, step: int, fed: Fed) -> None:
        # The step's metrics are of the parameters before it; those after it must be good too.
        loss = self.evaluator.loss_of(self.state.params, fed.batch)
        if not math.isfinite(loss):
            rate = float(
                learning_rate_schedule(self.config.optimizer, self.config.train.num_steps)(step)
            )
            raise TrainingDiverged(f"loss {loss:g} after step {step}, learning rate {rate:g}")
        self.checkpoints.save(self.state, fed.stream_state)


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
