"""`metrics.jsonl`: one JSON object per line; a resumed run first removes those of later steps."""

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from glm_jax.files import write_whole

_LOG = logging.getLogger(__name__)

# {"step": 10, "loss": 6.02, ..}; the step is an int.
Row = dict[str, float]


class MetricsLog:
    """Appends rows such as `{"step": 10, "loss": 6.02, "loss/span": 5.8, ...}`."""

    def __init__(self, path: Path, last_step: int, writes: bool = True):
        """Opens the log of a run that resumes after `last_step`.

        Rows of later steps are removed, since the run will write them again, and so is a last line
        that was cut off. Other lines that are not rows are removed too, but a copy of the old file
        is then kept beside it as damaged-1-metrics.jsonl.

        Args:
          path: created if missing.
          last_step: 0 for a new run.
          writes: False on all hosts but the first, which leave the log to it.
        """
        self._file = None
        if not writes:
            return
        if path.exists():
            before = path.read_bytes()
            kept = [row for row in read_metrics(path) if row["step"] <= last_step]
            content = "".join(json.dumps(row) + "\n" for row in kept).encode()
            if content != before:
                _keep_damaged(path, before)
                write_whole(path, content)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a row and flushes it.

        Values that are not finite are left out, such as the loss of an objective without targets.
        """
        if self._file is None:
            return
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": step} | {k: v for k, v in numbers.items() if math.isfinite(v)}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file; rows are flushed as they are written, so an error here loses nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def read_metrics(path: Path) -> list[Row]:
    """The rows of a log; lines that are not rows, such as a truncated one, are skipped."""
    return [row for row in map(_row, path.read_bytes().split(b"\n")) if row is not None]


def count_damaged(path: Path) -> int:
    """How many lines of a log are not rows, empty ones aside."""
    lines = path.read_bytes().split(b"\n")
    return sum(_row(line) is None for line in lines if line.strip())


def _row(line: bytes) -> Row | None:
    """The row in a line; None if `write` would not have written such a line."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return row if all(map(_is_finite, row.values())) else None


def _is_finite(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _keep_damaged(path: Path, content: bytes) -> None:
    """Keeps a copy of a log with lines that are not rows, other than a truncated last one."""
    *lines, _ = content.split(b"\n")
    odd = sum(_row(line) is None for line in lines if line.strip())
    if odd:
        number = 1
        while (kept := path.with_name(f"damaged-{number}-{path.name}")).exists():
            number += 1
        write_whole(kept, content)
        _LOG.warning(
            "%d lines of %s are not its rows, and are left out; as it was it is %s", odd, path, kept
        )


def data_shares(statistics: Mapping[str, int], sequence_length: int) -> dict[str, float]:
    """Counts over some rows as shares; also targets by objective, and rows by source of a mixture.

        {"rows": 4, "places_used": 250, "rows_fewer_spans": 1, "targets/span": 31, ..}, 64
        -> {"data/places_used": 0.977, "data/padding": 0.023, "data/rows_fewer_spans": 0.25,
            "data/targets/span": 31, ..}

    Args:
      statistics: of `Fed`, over some rows.
      sequence_length: T.
    """
    rows = max(statistics["rows"], 1)
    used = statistics["places_used"] / (rows * sequence_length)
    targets = {n: v for n, v in statistics.items() if n.startswith(("targets/", "rows/"))}
    return {
        "data/places_used": used,
        "data/padding": 1.0 - used,
        "data/rows_fewer_spans": statistics["rows_fewer_spans"] / rows,
    } | {f"data/{name}": float(count) for name, count in targets.items() if count}
