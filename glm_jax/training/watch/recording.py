"""What a run shows and records of its steps.

step done     metrics  ->  finite?  ->  a row of metrics.jsonl, trackers, a line of progress
evaluation    losses   ->  a row, a line, loss.png
save          seconds  ->  the next row
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import jax

from glm_jax.config import Config
from glm_jax.errors import UserError, did_you_mean
from glm_jax.training.distributed import is_first, on_first
from glm_jax.training.feed import Fed
from glm_jax.training.watch.goodput import Goodput
from glm_jax.training.watch.metrics import MetricsLog, data_shares
from glm_jax.training.watch.pace import Pace
from glm_jax.training.watch.plot import plot_losses
from glm_jax.training.watch.progress import Progress, evaluation_line, say
from glm_jax.training.watch.tasks import Answers
from glm_jax.training.watch.tracking import Tracker, open_trackers


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is no longer finite."""


class LimitPassed(TrainingDiverged):
    """A metric has passed its limit in `train.stop_above`."""


class Recorder:
    """Context around the steps of a run; the first process writes, the others measure too.

    Attributes:
      pace: of the steps; to be paused in evaluations, samples and saves.
      goodput: what the time is spent on.
      measured: finite metrics of the last step, and of an evaluation and of tasks after it.
      evaluated: the losses of the last evaluation, as text.
    """

    def __init__(
        self, config: Config, workdir: Path, first_step: int, goodput: Goodput | None = None
    ):
        """Opens the log and the trackers of a run that resumes after `first_step`.

        Args:
          config: of the run.
          workdir: of the run.
          first_step: the step after which it resumes.
          goodput: of this start of the run; None: one that begins here.

        Raises:
          OSError: the workdir cannot be written.
        """
        self._config, self._workdir = config, workdir
        tokens = config.data.batch_size * config.data.sequence_length
        self.pace = Pace(tokens)
        self.goodput = goodput or Goodput(tokens)
        self.measured: dict[str, float] = {}
        self._stall: float | None = None  # seconds, of a save since the last row
        self.evaluated = "not evaluated"
        self._progress = Progress(first_step, config.train.num_steps)
        self._trackers: list[Tracker] = []
        with ExitStack() as opened:
            self._log = MetricsLog(workdir / "metrics.jsonl", first_step, is_first())
            opened.callback(self._log.close)
            if is_first():
                self._trackers = open_trackers(config, workdir, first_step)
            for tracker in self._trackers:
                opened.callback(tracker.close)
            self._opened = opened.pop_all()

    def __enter__(self) -> "Recorder":
        self._progress.__enter__()
        self.goodput.turn("steps")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.goodput.turn("other")
        self._progress.__exit__()

    def close(self) -> None:
        """Closes the log and the trackers."""
        self._opened.close()

    @contextmanager
    def waiting(self, category: str = "waiting_for_data") -> Iterator[None]:
        """Context around the wait for a batch; `category` as of `Goodput`.

        Rollouts are part of a step, and not a wait for data.
        """
        with ExitStack() as stack:
            stack.enter_context(self.goodput.during(category))
            if category == "waiting_for_data":
                stack.enter_context(self.pace.waiting())
            yield

    def step(self, step: int, metrics: Mapping[str, jax.Array], fed: Fed) -> None:
        """Waits for a step's metrics; shows and writes them if a row is due.

        Args:
          step: its number.
          metrics: of `train_step`, may still be computed.
          fed: the batch of the step.

        Raises:
          TrainingDiverged: the loss or the gradient is not finite, or a metric is above its limit.
          UserError: there is a limit of a metric that there is not.
        """
        # jit sorts a dict's names; a reader wants "loss" first.
        values = {name: float(metrics[name]) for name in sorted(metrics, key=_reading_order)}
        values |= fed.metrics
        if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
            raise TrainingDiverged(
                f"loss {values['loss']:g}, gradient norm {values['grad_norm']:g} at step {step}, "
                f"learning rate {values['learning_rate']:g}"
            )
        self.pace.step_done()
        self.goodput.step_done(step)
        self._measure(values)
        self._check_limits(step, values)
        self._progress.step()
        settings = self._config.train
        if (settings.log_every and step % settings.log_every == 0) or step == settings.num_steps:
            pace = self.pace.take()
            left = self.pace.seconds_for(settings.num_steps - step)
            self._progress.logged(step, values | pace, left)
            shares = data_shares(fed.statistics, self._config.data.sequence_length)
            stall = {} if self._stall is None else {"time/save_stall": self._stall}
            self._stall = None
            self._write(step, values | pace | shares | stall | self.goodput.values())

    def _check_limits(self, step: int, values: Mapping[str, float]) -> None:
        """Ends a run of which a metric is above its limit, or is not finite any more."""
        for name, limit in self._config.train.limits.items():
            if name not in values:
                raise UserError(
                    f"train.stop_above names {name!r}, which a step of this run does not have"
                    f"{did_you_mean(name, values)}; it has {', '.join(values)}"
                )
            if not values[name] <= limit:
                raise LimitPassed(
                    f"{name} is {values[name]:g} at step {step}, above its limit "
                    f"{limit:g} in train.stop_above"
                )

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Shows and writes the losses of an evaluation, and draws loss.png."""
        self._write(step, values)
        self._measure(self.measured | values)
        say(line := evaluation_line(step, values))
        self.evaluated = line.partition(": ")[2]
        on_first(
            lambda: plot_losses(self._workdir / "metrics.jsonl", self._workdir / "loss.png"),
            "draw loss.png",
        )

    def tasks(self, step: int, answers: Answers) -> None:
        """Shows and writes the metrics of tasks, which count for the checkpoint of the step."""
        self._write(step, dict(answers.values))
        self._measure(self.measured | dict(answers.values))
        say(f"step {step}: {answers.line}")

    def saved(self, stall: float) -> None:
        """Notes for how many seconds a save kept training from its next step, for the next row."""
        self._stall = stall

    def _measure(self, values: dict[str, float]) -> None:
        self.measured = {name: value for name, value in values.items() if math.isfinite(value)}

    def _write(self, step: int, values: dict[str, float]) -> None:
        self._log.write(step, values)
        for tracker in self._trackers:
            tracker.write(step, values)


def _reading_order(name: str) -> tuple[bool, str]:
    return not name.startswith("loss"), name
