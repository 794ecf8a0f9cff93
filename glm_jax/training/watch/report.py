"""What `glm_jax.report` says of a run: where its time went, its restarts, its speed, its losses."""

import dataclasses
import time
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.training.watch.goodput_log import ALL, DOWN, LOG, LOST, STEPS, History, read_log
from glm_jax.training.watch.metrics import Row, count_damaged, read_metrics

_SECOND = 1e9
# What a reader of the table is told of each category.
MEANINGS = {
    STEPS: "steps that count",
    "compiling": "compiling the step",
    "waiting_for_data": "waiting for data",
    "rolling_out": "answers of the policy, and their rewards",
    "saving": "saving, while no step runs",
    "evaluating": "evaluating",
    "sampling": "sampling",
    "starting": "starting: imports, other hosts, data, restoring",
    "other": "other",
    LOST: "lost: steps done again",
    DOWN: "down: nothing ran",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """A run, as its workdir records it.

    Attributes:
      history: where its time went.
      rows: of metrics.jsonl.
      damaged: lines of each file that hold nothing, by its name.
    """

    history: History
    rows: list[Row]
    damaged: dict[str, int]

    def losses(self) -> list[tuple[int, float]]:
        """(step, training loss) of each row that has one."""
        return [(int(row["step"]), row["loss"]) for row in self.rows if "loss" in row]

    def tokens_per_second(self) -> dict[str, float]:
        """Tokens of the steps that count, per second in steps and per second of wall time."""
        tokens = self.history.steps * self.history.tokens_per_step
        spent = {"steps": self.history.nanoseconds[STEPS], "wall": self.history.wall}
        return {name: tokens / (max(value, 1) / _SECOND) for name, value in spent.items()}

    def as_dict(self) -> dict[str, object]:
        """All of it, for programs; times in seconds, moments as Unix time."""
        history, losses = self.history, self.losses()
        wall = max(history.wall, 1)
        return {
            "wall_seconds": history.wall / _SECOND,
            "goodput": history.nanoseconds[STEPS] / wall,
            "seconds": {name: value / _SECOND for name, value in history.nanoseconds.items()},
            "share": {name: value / wall for name, value in history.nanoseconds.items()},
            "steps": history.steps,
            "status": history.status,
            "restarts": [
                {
                    "at": one.at / _SECOND,
                    "down_seconds": one.down / _SECOND,
                    "reached_step": one.reached,
                    "status": "killed" if one.status is None else one.status,
                    "resumed_after_step": one.resumed,
                    "steps_lost": one.steps_lost,
                    "lost_seconds": one.lost / _SECOND,
                    "processes": one.processes,
                }
                for one in history.restarts
            ],
            "tokens_per_second": self.tokens_per_second(),
            "loss": {
                name: {"step": losses[index][0], "loss": losses[index][1]} if losses else None
                for name, index in (("first", 0), ("last", -1))
            },
            "damaged_lines": self.damaged,
        }

    def as_text(self) -> str:
        """A table."""
        history, speed = self.history, self.tokens_per_second()
        ends = "runs, or was killed" if history.status is None else f"status {history.status}"
        lines = [
            f"{history.steps:,} steps in {_clock(history.wall)}, from {_moment(history.began)} to "
            f"{_moment(history.ended)} UTC; its last start: {ends}",
            "",
        ]
        for name in ALL:
            value = history.nanoseconds[name]
            share = value / max(history.wall, 1)
            lines.append(f"{value / _SECOND:14,.1f} s {share:7.2%}  {MEANINGS[name]}")
        lines.append(f"{history.wall / _SECOND:14,.1f} s {1:7.2%}  wall time")
        lines += ["", f"{len(history.restarts)} restarts"]
        for one in history.restarts:
            status = "killed" if one.status is None else f"status {one.status}"
            lines.append(
                f"  {_moment(one.at)} UTC  {status} at step {one.reached}, down "
                f"{one.down / _SECOND:,.1f} s, resumed after step {one.resumed} on "
                f"{one.processes} process(es): {one.steps_lost} steps lost, "
                f"{one.lost / _SECOND:,.1f} s"
            )
        lines += [
            "",
            f"tokens/s    {speed['steps']:,.0f} over steps, {speed['wall']:,.0f} over wall time",
        ]
        if losses := self.losses():
            (first, before), (last, after) = losses[0], losses[-1]
            lines.append(f"loss        {before:.4f} at step {first}, {after:.4f} at step {last}")
        for name, count in self.damaged.items():
            lines.append(f"skipped     {count} damaged line(s) of {name}")
        return "\n".join(lines)


def read_report(workdir: Path) -> Report:
    """The report of a run.

    Raises:
      UserError: there is no such workdir, or it has no metrics or no record of its time.
    """
    if not workdir.is_dir():
        raise UserError(f"there is no workdir {str(workdir)!r}")
    metrics, log = workdir / "metrics.jsonl", workdir / LOG
    for path in (metrics, log):
        if not path.is_file():
            raise UserError(
                f"the workdir {str(workdir)!r} has no {path.name}, which glm_jax.train writes from "
                "its first step on"
            )
    try:
        records, damaged = read_log(log)
        found = {metrics.name: count_damaged(metrics), log.name: damaged}
        rows = read_metrics(metrics)
    except OSError as error:
        raise UserError(f"{str(workdir)!r} cannot be read: {error.strerror or error}") from error
    if not records:
        raise UserError(f"{str(log)!r} holds no line that glm_jax.train wrote")
    return Report(History(records), rows, {name: count for name, count in found.items() if count})


def _clock(nanoseconds: int) -> str:
    """3723 s -> 1:02:03"""
    seconds = round(nanoseconds / _SECOND)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _moment(nanoseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(nanoseconds / _SECOND))
