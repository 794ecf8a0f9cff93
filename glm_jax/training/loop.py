"""The training loop: `train(config, workdir, ...)`.

A run resumes in this order:

1. The newest intact checkpoint is restored (parameters, optimizer, step), or that of `Rewind`.
2. The row stream is set to its state after that step.
3. Rows of metrics.jsonl after that step are removed.

Dropout has no state: its keys are a function of seed and step. So k steps, a kill and N - k steps
give the same losses and parameters as N steps without a kill, bit for bit.
"""

import functools
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import jax
from jax.sharding import Mesh

from glm_jax.adapters.fingerprint import shortened
from glm_jax.batch import Batch
from glm_jax.checkpoints.base import Base
from glm_jax.checkpoints.disk import DiskTrouble
from glm_jax.checkpoints.loading import load_model
from glm_jax.checkpoints.retention import check_names, saved_steps
from glm_jax.config import Config
from glm_jax.data.identity import fingerprints
from glm_jax.data.record import check_checkpoint, check_data, record_data
from glm_jax.errors import UserError
from glm_jax.models.trees import Params
from glm_jax.paths import expanded
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.distributed import (
    any_of,
    is_first,
    on_first,
    require_same,
    share,
    wait_for_all,
)
from glm_jax.training.evaluation import Evaluator
from glm_jax.training.feed import Fed, Feed, Stream, to_devices
from glm_jax.training.optimizer.optimizers import learning_rate_schedule
from glm_jax.training.rollouts.assembling import Assembling
from glm_jax.training.rollouts.evaluating import RolloutEvaluator, RolloutSampler
from glm_jax.training.rollouts.feed import RolloutFeed
from glm_jax.training.run.beginning import beginning
from glm_jax.training.run.ending import failed
from glm_jax.training.run.extension import adopted
from glm_jax.training.run.freed_memory import is_kept
from glm_jax.training.run.interrupts import Interrupts
from glm_jax.training.run.next_command import filling, going_on, longer
from glm_jax.training.run.owner import owned
from glm_jax.training.run.rewind import (
    Rewind,
    SkippingStream,
    check_rewind,
    go_back,
    read_skips,
)
from glm_jax.training.run.stopping import Stopping
from glm_jax.training.run.twin import Twin
from glm_jax.training.run.workdir import (
    check_config,
    check_shared,
    check_workdir,
    read_record,
    record_run,
)
from glm_jax.training.state import create_state, frozen_part, saves_trained_alone
from glm_jax.training.step import Metrics, compile_train_step, make_eval_step
from glm_jax.training.unigram import target_counts
from glm_jax.training.watch.goodput import Goodput
from glm_jax.training.watch.goodput_log import LOG
from glm_jax.training.watch.profiling import Profiler
from glm_jax.training.watch.progress import say
from glm_jax.training.watch.recording import Recorder, TrainingDiverged
from glm_jax.training.watch.samples import Sampler, choose_texts
from glm_jax.training.watch.sections import SectionFile
from glm_jax.training.watch.summary import kept_line, summary
from glm_jax.training.watch.tasks import ANSWERS, Watched
from glm_jax.training.watch.tracking import check_trackers

# batches(split, shard_index, num_shards) -> RowStream, see glm_jax.pipeline.batches.
Batches = Callable[[str, int, int], Stream]


def train(
    config: Config,
    workdir: str | Path,
    batches: Batches,
    tokenizer: Tokenizer,
    params: Params | None = None,
    rewind: Rewind | None = None,
    watched: Watched | None = None,
) -> int:
    """Trains a model, or resumes the run in `workdir`.

    Args:
      config: of the run.
      workdir: created if missing; `glm_jax.training.run.workdir` lists its files.
      batches: opens the row stream of a split for one of several hosts.
      tokenizer: of the data; it is saved in the workdir and decodes the samples.
      params: initial parameters of a new run, see `starting_point`; None: random ones. A run that
        does not train all of those of `train.init_from` takes them when it is resumed, too.
      rewind: None to resume from the newest checkpoint.
      watched: what is looked at beside the losses, steps to be traced and tasks; None: nothing.

    Returns:
      The exit status: 0 done; 1 the loss diverged; 3 the disk is full or cannot be written; 143 or
      130 stopped by SIGTERM or SIGINT with a checkpoint saved.

    Raises:
      ValueError: the config cannot run here, or the workdir belongs to another config; nothing is
        written then.
    """
    goodput = Goodput(config.data.batch_size * config.data.sequence_length, beginning())
    workdir = expanded(workdir)
    mesh = make_mesh(config.mesh)
    check_config(config, mesh, tokenizer.vocab_size, share()[1])
    check_trackers(config)
    try:
        config, newest = _checked(config, workdir, rewind)
    except (DiskTrouble, OSError) as error:
        return failed(error, workdir)
    # Without a workdir that all see, one would be done and the others wait for it.
    require_same({f"the newest checkpoint in {str(workdir)!r}": str(newest)})
    if newest >= config.train.num_steps:
        say(f"{workdir} is finished: it has a checkpoint of step {newest}")
        say(f"{filling(config, workdir)}\n{longer(config)}")
        return 0
    with ExitStack() as stack:
        stack.enter_context(owned(workdir))
        # Another run may have made or changed it before this one owned it.
        config, _ = _checked(config, workdir, rewind)
        checkpoints = Checkpoints(workdir / "checkpoints", config, mesh)
        stack.callback(checkpoints.close)
        run = _Run(config, workdir, checkpoints, mesh, stack, goodput)
        run.watched = watched or Watched()
        try:
            run.prepare(batches, tokenizer, params, rewind)
            return goodput.ends(run.train())
        except (TrainingDiverged, DiskTrouble, OSError) as error:
            return goodput.ends(failed(error, workdir, checkpoints.wait))


def _checked(config: Config, workdir: Path, rewind: Rewind | None) -> tuple[Config, int]:
    """The config with the extensions that the workdir records, and the step to resume after."""
    config = adopted(config, read_record(workdir))
    check_workdir(workdir, config)
    check_names(workdir / "checkpoints")
    check_rewind(workdir, rewind)
    newest = max(saved_steps(workdir / "checkpoints"), default=0)
    return config, newest if rewind is None else rewind.step


class _Run:
    """One process of a run, from its first step to its last.

    Every check that may refuse the config comes before the first write.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        checkpoints: Checkpoints,
        mesh: Mesh,
        stack: ExitStack,
        goodput: Goodput,
    ):
        self.config, self.workdir, self.checkpoints = config, workdir, checkpoints
        self.mesh, self.stack, self.goodput = mesh, stack, goodput
        self.twin = Twin(workdir)
        self.rewound, self.watched = False, Watched()
        self.evaluator: Evaluator | RolloutEvaluator
        self.sampler: Sampler | RolloutSampler
        self.feed: Feed | RolloutFeed

    def prepare(
        self, batches: Batches, tokenizer: Tokenizer, params: Params | None, rewind: Rewind | None
    ) -> None:
        """Does everything that precedes the first step."""
        config, workdir = self.config, self.workdir
        # Answers are given by all processes together, to the prompts of all.
        mine = (0, 1) if config.has_rollouts else share()
        stream = SkippingStream(batches("train", *mine), read_skips(workdir))
        held_out = _take(batches("eval", *mine), config.train.eval_batches)
        change = check_data(workdir, stream.data, tokenizer, config.train.accept_data_change)
        self.checkpoints.data = fingerprints(stream.data)
        named = {f"the data {source}": found for source, found in self.checkpoints.data.items()}
        same = {**named, "the tokenizer": tokenizer.fingerprint}
        if self.watched.tasks is not None:
            same["what train.eval_tasks names"] = self.watched.tasks.fingerprint
        require_same(same)
        on_first(lambda: self._record(tokenizer), "write to the workdir")
        check_shared(workdir)
        stream, start = self._start(stream, params, rewind)
        self.first_step = int(self.state.step)
        on_first(
            lambda: record_data(workdir, stream.data, tokenizer, self.first_step, change),
            "record the data",
        )
        if change is not None:
            start += f", with other data: {change}"
        say(summary(config, self.mesh, stream.num_rows, start))
        on_first(self.twin.fetch, "copy the files that grow")
        samples = self.twin.directory / "samples.txt"
        if config.has_rollouts:
            load = functools.partial(load_model, mesh=self.mesh)
            eval_step = make_eval_step(config, self.mesh)
            assembling = Assembling(config, self.mesh, tokenizer, load, eval_step)
            parts = assembling.parts(stream, held_out, params, workdir, samples)
            self.evaluator, self.sampler, self.feed = parts.evaluator, parts.sampler, parts.feed
        else:
            self._assemble(batches, tokenizer, stream, held_out, samples)
        self.stack.callback(self.feed.close)
        on_first(lambda: self.sampler.rewind(self.first_step), "go on in samples.txt")
        self.answers = SectionFile(self.twin.directory / ANSWERS)
        on_first(lambda: self.answers.rewind(self.first_step), f"go on in {ANSWERS}")
        self.stack.callback(self.twin.close)
        self.recorder = Recorder(config, self.twin.directory, self.first_step, self.goodput)
        self.stack.callback(self.recorder.close)
        self.stack.enter_context(self.goodput.logged(self.twin.directory / LOG, self.first_step))
        on_first(self.twin.upload, "upload the files that grow")

    def _assemble(
        self,
        batches: Batches,
        tokenizer: Tokenizer,
        stream: SkippingStream,
        held_out: list[Batch],
        samples: Path,
    ) -> None:
        """Sets what evaluates, makes samples and gives batches, of rows of files."""
        config, sharding = self.config, batch_sharding(self.mesh)
        counts = target_counts(
            self.workdir / "unigram.npz", lambda: batches("train", 0, 1), config, stream.data
        )
        wait_for_all()
        self.evaluator = Evaluator(
            config, self.mesh, [to_devices(batch, sharding) for batch in held_out], counts
        )
        # Rows of the global batch, not of this host's share: all hosts fill the same blanks.
        first = held_out[0] if share()[1] == 1 else _take(batches("eval", 0, 1), 1)[0]
        texts = choose_texts(first, tokenizer.special.end, config.model.continues_texts)
        # A reward model is no longer one that writes.
        texts = [] if config.model.value_head else texts
        self.sampler = Sampler(config, tokenizer, texts, samples)
        self.feed = Feed(stream, sharding)

    def _start(
        self, stream: SkippingStream, params: Params | None, rewind: Rewind | None
    ) -> tuple[SkippingStream, str]:
        """Sets the state and the stream; returns the stream and a description of the start."""
        if params is not None and saves_trained_alone(self.config):
            frozen = frozen_part(self.config, self.mesh, params)
            base = Base.of(str(self.config.train.init_from), frozen)
            require_same({f"the model {base.name}": shortened(base.fingerprint)})
            self.checkpoints.base, self.checkpoints.frozen = base, frozen
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
        self.rewound = rewind is not None
        start = f"goes on after step {int(self.state.step)} of {self.workdir}"
        if rewind is None:
            return stream, start
        stream, said = go_back(self.workdir, stream, rewind)
        return stream, start + said

    def _record(self, tokenizer: Tokenizer) -> None:
        try:
            record_run(self.workdir, self.config, tokenizer)
        except OSError as error:
            raise UserError(
                f"the workdir {str(self.workdir)!r} cannot be written: {error.strerror or error}"
            ) from error

    def train(self) -> int:
        """Runs the steps that are left; returns the exit status."""
        last = self.config.train.num_steps
        with self.goodput.during(self.feed.category):
            fed = self.feed.take(self.state)
        say("compiling ...")
        with self.goodput.during("compiling"):
            train_step = compile_train_step(self.config, self.mesh)
            wait_for_all()
        if is_kept():
            say(kept_line(train_step))
        profile = self.watched.profile
        profiler = Profiler(profile if is_first() else None, self.twin.directory / "profile")
        self.stack.callback(profiler.close)
        self.recorder.pace.restart()
        first, deadline = self.first_step, self.config.train.preemption_deadline
        with Interrupts(deadline) as interrupts, self.recorder:
            stop = Stopping(interrupts, first, deadline)
            # The samples of a step that was stopped or killed after its save, before its samples.
            if first and "sample" in self._due(first) and self.sampler.lacks(first):
                with self.goodput.during("sampling"):
                    self.sampler.add(first, self.state.params)
            # A step's metrics are fetched while the next step runs.
            waiting: tuple[int, Metrics, Fed] | None = None
            for step in range(first + 1, last + 1):
                if step > first + 1:
                    with self.recorder.waiting(self.feed.category):
                        fed = self.feed.take(self.state)
                profiler.before(step)
                self.state, metrics = train_step(self.state, fed.batch)
                if waiting is not None:
                    self.recorder.step(*waiting)
                waiting = (step, metrics, fed)
                if traced := profiler.after(step, metrics):
                    say(traced)
                self.checkpoints.poll()
                stops = functools.partial(
                    stop.after, step, functools.partial(jax.block_until_ready, metrics)
                )
                due = self._due(step)
                stopping = step < last and self.feed.between and stops(now=bool(due))
                if due or stopping:
                    self.recorder.step(*waiting)
                    waiting = None
                    stopping = self._pause_for(due, step, fed, stopping, stops)
                if stopping:
                    self._wait_for_all()
                    say(
                        f"stopped by {interrupts.received_name}; step {step} is saved, "
                        f"{interrupts.age:.1f} s after the signal; {going_on(self.rewound)}"
                    )
                    return interrupts.exit_status
            self._wait_for_all()
        say(f"done: {last} steps, {self.recorder.evaluated}; see {self.workdir}")
        say(filling(self.config, self.workdir))
        return 0

    def _wait_for_all(self) -> None:
        """Waits for the last save, on all processes: one whose save fails ends the others too."""
        with self.goodput.during("saving"):
            self.checkpoints.wait()
            any_of(False)

    def _due(self, step: int) -> list[str]:
        """What is due after this step: "evaluate", "ask", "save", "sample"."""
        settings = self.config.train
        last = step == settings.num_steps
        due = {
            "evaluate": last or _every(settings.eval_every, step),
            "ask": self.watched.tasks is not None
            and (last or _every(settings.eval_tasks_every or settings.eval_every, step)),
            "save": last or _every(settings.checkpoint_every, step),
            "sample": last or _every(settings.sample_every, step),
        }
        return [name for name, now in due.items() if now]

    def _pause_for(
        self, due: list[str], step: int, fed: Fed, stopping: bool, stops: Callable[..., bool]
    ) -> bool:
        """Does what is due; returns whether to stop, which may show in an evaluation only."""
        self.recorder.pace.pause()
        if "evaluate" in due:
            with self.goodput.during("evaluating"):
                self.recorder.evaluation(step, self.evaluator(self.state.params))
        if "ask" in due:
            with self.goodput.during("evaluating"):
                self._ask(step)
        may_stop = self.feed.between and step < self.config.train.num_steps
        if {"evaluate", "ask"} & {*due} and not stopping and may_stop:
            stopping = stops(now=True)
        if "save" in due or stopping:
            with self.goodput.during("saving"):
                self._save(step, fed)
        # A stopped run makes its samples when it goes on: now there may be no time.
        if "sample" in due and not stopping:
            with self.goodput.during("sampling"):
                self.sampler.add(step, self.state.params)
        self.recorder.pace.resume()
        return stopping

    def _ask(self, step: int) -> None:
        """Asks the model the tasks, before the save of the step, which keeps their metrics."""
        assert self.watched.tasks is not None  # it was due
        found = self.watched.tasks(self.state.params)
        self.recorder.tasks(step, found)
        on_first(lambda: self.answers.add(f"step {step}\n{found.shown}"), f"write {ANSWERS}")

    def _save(self, step: int, fed: Fed) -> None:
        began = time.perf_counter()
        # The step's metrics belong to the parameters before it; those after it must be finite too.
        loss = self.evaluator.loss_of(self.state.params, fed.batch)
        if not math.isfinite(loss):
            rate = float(
                learning_rate_schedule(self.config.optimizer, self.config.train.num_steps)(step)
            )
            raise TrainingDiverged(f"loss {loss:g} after step {step}, learning rate {rate:g}")
        on_first(self.twin.upload, "upload the files that grow")
        self.checkpoints.save(self.state, fed.stream_state, self.recorder.measured)
        self.recorder.saved(time.perf_counter() - began)


def _take(stream: Stream, count: int) -> list[Batch]:
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def _every(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0
