"""Going back to an older checkpoint and skipping a range of batches, past a spike of the loss.

    python -m glm_jax.train ... --resume_step 400 --skip_batches 50

    WORKDIR/rewound/1/checkpoints/600   what came after step 400 is moved, not removed
                     /metrics.jsonl     as it was, with the rows after step 400
           /skipped.json                [[400, 450]]: batches 400 .. 449 are never trained on

The stream's state is the number of its next batch. If that batch is in a skipped range, the stream
moves to the end of the range. This depends on the number alone, so kills, later resumes and other
hosts train on the same batches.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from glm_jax.batch import Batch
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.data.identity import Identity
from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.training.distributed import on_first
from glm_jax.training.feed import Stream

SKIPPED = "skipped.json"
# Upper bound of batch numbers, far beyond any run.
LAST_BATCH = 1 << 40


@dataclasses.dataclass(frozen=True)
class Rewind:
    """The checkpoint to resume from instead of the newest.

    Attributes:
      step: of the checkpoint.
      skip_batches: number of batches after that step that are skipped for good.
    """

    step: int
    skip_batches: int = 0


def check_rewind(workdir: Path, rewind: Rewind | None) -> None:
    """Refuses a rewind that cannot be done.

    Raises:
      ValueError: there is no checkpoint of that step, or `skip_batches` is out of range.
    """
    if rewind is None:
        return
    steps = saved_steps(workdir / "checkpoints")
    if rewind.step not in steps:
        there = f"there are {steps}" if steps else "there is none at all"
        raise UserError(
            f"--resume_step: no checkpoint of step {rewind.step} in {str(workdir)!r}; {there}"
        )
    if not 0 <= rewind.skip_batches <= LAST_BATCH // 2:
        raise UserError(f"--skip_batches must be 0 to {LAST_BATCH // 2}; got {rewind.skip_batches}")


def move_later(workdir: Path, step: int) -> Path | None:
    """Moves the checkpoints after a step to WORKDIR/rewound, with copies of metrics and samples.

    Returns:
      The directory they are in now; None if there were none.
    """
    later = [one for one in saved_steps(workdir / "checkpoints") if one > step]
    if not later:
        return None
    number = 1
    while (workdir / "rewound" / str(number)).exists():
        number += 1
    target = workdir / "rewound" / str(number)
    (target / "checkpoints").mkdir(parents=True)
    for name in ("metrics.jsonl", "samples.txt", "answers.txt"):
        if (workdir / name).is_file():
            write_whole(target / name, (workdir / name).read_bytes())
    # The newest first: after a kill in between, the remaining steps have no gap.
    for one in reversed(later):
        (workdir / "checkpoints" / str(one)).rename(target / "checkpoints" / str(one))
    return target


def read_skips(workdir: Path) -> list[tuple[int, int]]:
    """The skipped ranges of batch numbers, half open, ascending.

    Raises:
      ValueError: `skipped.json` holds something else.
    """
    path = workdir / SKIPPED
    if not path.exists():
        return []
    try:
        spans = json.loads(path.read_text(encoding="utf-8"))
        check_spans(spans)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} must be a list of pairs such as [[400, 450]]; {error}"
        ) from error
    return merged((start, stop) for start, stop in spans)


def check_spans(spans: object) -> None:
    """Refuses what is not a list of ascending pairs of batch numbers.

    Raises:
      UserError: names the first wrong element.
    """
    if not isinstance(spans, list):
        raise UserError(f"got {str(spans)[:80]!r}")
    for span in spans:
        is_pair = isinstance(span, list | tuple) and len(span) == 2
        if not is_pair or any(type(number) is not int for number in span):
            raise UserError(f"got {str(span)[:80]!r} for a pair of whole numbers")
        if not 0 <= span[0] <= span[1] <= LAST_BATCH:
            raise UserError(
                f"got {str(span)[:80]!r}, which must ascend, from 0 to {LAST_BATCH} at most"
            )


def write_skips(workdir: Path, spans: list[tuple[int, int]]) -> None:
    """Records the skipped ranges for all later resumes."""
    write_whole(workdir / SKIPPED, json.dumps(spans).encode())


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending, disjoint ranges: [(400, 450), (430, 460), (10, 10)] -> [(400, 460)]."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def go_back(
    workdir: Path, stream: "SkippingStream", rewind: Rewind
) -> tuple["SkippingStream", str]:
    """Records the batches to be skipped and moves what came after the step.

    Args:
      workdir: of the run.
      stream: in its state after `rewind.step`.
      rewind: as `check_rewind` accepts it.

    Returns:
      The stream without the batches, and a clause for the message of the start.

    Raises:
      UserError: the batches are beyond the last that there can be.
    """
    said = ""
    if rewind.skip_batches:
        first = int(stream.get_state())
        span = (first, first + rewind.skip_batches)
        check_spans([span])
        spans = merged([*read_skips(workdir), span])
        stream = stream.without(spans)
        said += f", without batches {span[0]} to {span[1] - 1}"
        on_first(lambda: write_skips(workdir, spans), "record the batches left out")
    moved = on_first(lambda: move_later(workdir, rewind.step), "move what came after")
    return stream, said if moved is None else f"{said}; what came after is in {moved}"


class SkippingStream:
    """A `RowStream` without some ranges of its batches."""

    def __init__(self, stream: Stream, spans: list[tuple[int, int]]):
        """Args:
        stream: the stream to read, from its present state.
        spans: batches to skip, as `merged` gives them.
        """
        self._stream, self._spans = stream, spans
        self.num_rows = stream.num_rows

    def without(self, spans: list[tuple[int, int]]) -> "SkippingStream":
        """The same stream with other ranges to skip."""
        return SkippingStream(self._stream, spans)

    @property
    def data(self) -> Identity:
        """As of `RowStream`."""
        return self._stream.data

    @property
    def statistics(self) -> dict[str, int]:
        """The stream's counts, over the batches that were delivered."""
        return self._stream.statistics

    def __iter__(self) -> "SkippingStream":
        return self

    def __next__(self) -> Batch:
        number = int(self._stream.get_state())
        for start, stop in self._spans:
            if start <= number < stop:
                self._stream.set_state(str(stop).encode())
        return next(self._stream)

    def get_state(self) -> bytes:
        """As of `RowStream`."""
        return self._stream.get_state()

    def set_state(self, state: bytes) -> None:
        """As of `RowStream`."""
        self._stream.set_state(state)

    def close(self) -> None:
        """As of `RowStream`."""
        self._stream.close()
