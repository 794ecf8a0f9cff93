"""`metrics.jsonl`: one JSON object a line, and none that a resumed run would write again."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glm_jax.training.workdir import write_whole


class MetricsLog:
    """Appends rows such as `{"step": 10, "loss": 6.02, "loss/span": 5.8, ...}`."""

    def __init__(self, path: Path, last_step: int, writes: bool = True):
        """Opens the log of a run that goes on after `last_step`.

        Rows of later steps, which the run will write again, are removed, and so is a last line that
        was cut off.

        Args:
          path: made where it is missing.
          last_step: 0 for a new run.
          writes: False on hosts that leave the log to the first one.
        """
        self._file = None
        if not writes:
            return
        if path.exists():
            kept = [row for row in read_metrics(path) if row["step"] <= last_step]
            content = "".join(json.dumps(row) + "\n" for row in kept).encode()
            if content != path.read_bytes():
                write_whole(path, content)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a row at once; a value that is not finite, such as the loss of an objective that had
        no target, is left out."""
        if self._file is None:
            return
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": step} | {k: v for k, v in numbers.items() if math.isfinite(v)}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; lines that are not whole are skipped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def data_shares(statistics: Mapping[str, int], sequence_length: int) -> dict[str, float]:
    """What the row stream counted, as shares.

        {"rows": 4, "places_used": 250, "rows_fewer_spans": 1, ..}, 64
        -> {"data/places_used": 0.977, "data/rows_fewer_spans": 0.25}

    Args:
      statistics: of `RowStream`, over some rows.
      sequence_length: T.
    """
    rows = max(statistics["rows"], 1)
    return {
        "data/places_used": statistics["places_used"] / (rows * sequence_length),
        "data/rows_fewer_spans": statistics["rows_fewer_spans"] / rows,
    }


class Throughput:
    """Tokens per second, without the time that evaluations and checkpoints take."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Forgets what was counted."""
        self._tokens = 0
        self._since = self._paused_at = self._clock()

    def add(self, tokens: int) -> None:
        """Counts the places of a step that is done."""
        self._tokens += tokens

    def pause(self) -> None:
        """Stops the clock."""
        self._paused_at = self._clock()

    def resume(self) -> None:
        """Starts the clock again after `pause`."""
        self._since += self._clock() - self._paused_at

    def take(self) -> float:
        """The rate since it was taken last."""
        now = self._clock()
        rate = self._tokens / max(now - self._since, 1e-9)
        self._tokens, self._since = 0, now
        return rate
