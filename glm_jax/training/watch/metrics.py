"""`metrics.jsonl`: one JSON object a line, and none that a resumed run would write again."""

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_jax.files import write_whole

_LOG = logging.getLogger(__name__)


class MetricsLog:
    """Appends rows such as `{"step": 10, "loss": 6.02, "loss/span": 5.8, ...}`."""

    def __init__(self, path: Path, last_step: int, writes: bool = True):
        """Opens the log of a run that goes on after `last_step`.

        Rows of later steps, which the run will write again, are removed, and so is a last line that
        was cut off. Other lines that are not rows are removed too, but the file as it was is kept
        beside it, as damaged-1-metrics.jsonl.

        Args:
          path: made where it is missing.
          last_step: 0 for a new run.
          writes: False on hosts that leave the log to the first one.
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
        """Closes the file; each row was written at once, so that nothing is lost here."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; lines that are not rows, such as one that was cut off, are skipped."""
    return [row for row in map(_row, path.read_bytes().split(b"\n")) if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that `write` would have written as this line; None: it is none."""
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
    """Keeps a log with lines, but for a last one that was cut off, which are not rows."""
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
    """What was counted in some rows, as shares; targets by objective, rows by source of a mixture.

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
