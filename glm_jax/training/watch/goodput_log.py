"""`goodput.jsonl`: where the time of a run went, over all its starts, kills and restarts.

    {"start": 2, "began": 1790000000000000000, "first_step": 40, "step": 57, "processes": 2,
     "tokens_per_step": 4096, "nanoseconds": {"starting": 9100000000, "steps": 31000000000, ..}}

A line is the state of one start of the run at one moment, summed since that start began. The first
process writes it; the file is only ever appended to, except that the last line is replaced by its
successor until a save or a while closes it. Nothing is cut when the run resumes, since the steps
that are done again are what it must remember. The last line of a start has `status` if it ended in
Python; without one, it was killed.

All times are whole nanoseconds, so that the categories of a start add up to its time exactly.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LOG = "goodput.jsonl"
STEPS, LOST, DOWN = "steps", "lost", "down"
# What a moment of a start can be spent on.
CATEGORIES = (
    STEPS,
    "compiling",
    "waiting_for_data",
    "rolling_out",
    "saving",
    "evaluating",
    "sampling",
    "starting",
    "other",
)
# What only a look at all starts tells: steps that were done again, and the time between starts.
ALL = (*CATEGORIES, LOST, DOWN)
_MOST = 1 << 63


@dataclasses.dataclass(frozen=True)
class Record:
    """A line of the log.

    Attributes:
      start: 1 for the first start of the run, and so on.
      began: when this start began, Unix time in nanoseconds.
      first_step: the step after which it resumed; 0 for a new run.
      step: the last step that it has done.
      processes: of the run.
      tokens_per_step: slots of a batch, over all hosts.
      nanoseconds: spent on each of `CATEGORIES` since it began; missing ones are 0.
      status: with which it ended; None: it runs, or was killed.
    """

    start: int
    began: int
    first_step: int
    step: int
    processes: int
    tokens_per_step: int
    nanoseconds: Mapping[str, int]
    status: int | None = None

    @property
    def at(self) -> int:
        """The moment of the line, Unix time in nanoseconds."""
        return self.began + sum(self.nanoseconds.values())

    @property
    def steps(self) -> int:
        """Nanoseconds spent on steps."""
        return self.nanoseconds.get(STEPS, 0)

    def line(self) -> bytes:
        """The record as a line of the log."""
        fields = dataclasses.asdict(self)
        if self.status is None:
            del fields["status"]
        return json.dumps(fields).encode() + b"\n"


def parse(line: bytes) -> Record | None:
    """The record in a line; None if it holds none."""
    try:
        fields = json.loads(line)
        record = Record(**fields)
        numbers = [value for name, value in fields.items() if name not in ("nanoseconds", "status")]
        numbers += record.nanoseconds.values()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if any(type(number) is not int or not 0 <= number < _MOST for number in numbers):
        return None
    known = set(record.nanoseconds) <= set(CATEGORIES) and record.step >= record.first_step
    return record if known and type(record.status) in (int, type(None)) else None


def read_log(path: Path) -> tuple[list[Record], int]:
    """The records of a log in their order, and how many of its lines hold none.

    Raises:
      OSError: the file cannot be read.
    """
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    records = [record for record in map(parse, lines) if record is not None]
    return records, len(lines) - len(records)


@dataclasses.dataclass(frozen=True)
class Restart:
    """A start of a run after another.

    Attributes:
      at: when it began, Unix time in nanoseconds.
      down: nanoseconds for which nothing ran before it.
      status: of the start before; None: killed.
      reached: the last step of the start before.
      resumed: the step after which this one resumed.
      lost: nanoseconds of steps before it that were done again, one that was cut short included.
      processes: of the run, from here on.
    """

    at: int
    down: int
    status: int | None
    reached: int
    resumed: int
    lost: int
    processes: int

    @property
    def steps_lost(self) -> int:
        """Steps that were done again."""
        return max(self.reached - self.resumed, 0)


class _Start:
    """The records of one start, and how much of its time in steps still counts."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.first, self.last = records[0], records[-1]
        self.kept = self.last.steps

    def steps_until(self, step: int) -> int:
        """Nanoseconds in steps up to the end of `step`, of those that it has done."""
        before, began = self.first.first_step, 0
        for record in self.records:
            if record.step >= step:
                # Each save has a line. Between lines, each step is taken to be as long as another.
                done = (record.steps - began) * (step - before)
                return began + done // max(record.step - before, 1)
            before, began = record.step, record.steps
        return self.last.steps

    def cut(self, step: int) -> int:
        """Counts nothing after `step` any more; returns the nanoseconds that this takes away."""
        kept = self.steps_until(step) if step > self.first.first_step else 0
        taken = max(self.kept - kept, 0)
        self.kept -= taken
        return taken


class History:
    """All starts of a run.

    Attributes:
      nanoseconds: spent on each of `ALL`; they add up to `wall`.
      restarts: every start but the first.
      began, ended: of the run, Unix time in nanoseconds.
      steps: done, each counted once.
      status: of the last start; None: it runs, or was killed.
      tokens_per_step: slots of a batch, over all hosts.
    """

    def __init__(self, records: Sequence[Record]):
        """Args:
        records: of a log, at least one.
        """
        self._starts: list[_Start] = []
        self.restarts: list[Restart] = []
        for group in _by_start(records):
            if self._starts:
                self.restarts.append(self._restart(group[0]))
            self._starts.append(_Start(group))
        spent = dict.fromkeys(ALL, 0)
        for start in self._starts:
            for name, value in start.last.nanoseconds.items():
                spent[name] += value
        spent[LOST] = sum(one.lost for one in self.restarts)
        spent[STEPS] -= spent[LOST]
        spent[DOWN] = sum(one.down for one in self.restarts)
        self.nanoseconds: dict[str, int] = spent
        last = records[-1]
        self.began, self.ended = records[0].began, last.at
        self.steps = last.step - min(start.first.first_step for start in self._starts)
        self.status, self.tokens_per_step = last.status, last.tokens_per_step

    @property
    def wall(self) -> int:
        """Nanoseconds since the run began."""
        return sum(self.nanoseconds.values())

    @property
    def beginnings(self) -> list[int]:
        """When each start began, in nanoseconds of wall time since the run began."""
        times, at = [], 0
        downs = [0, *(one.down for one in self.restarts)]
        for start, down in zip(self._starts, downs, strict=True):
            times.append(at + down)
            at += down + sum(start.last.nanoseconds.values())
        return times

    def _restart(self, record: Record) -> Restart:
        last, lost = self._starts[-1].last, 0
        for start in reversed(self._starts):
            lost += start.cut(record.first_step)
            if start.first.first_step <= record.first_step:
                break
        return Restart(
            at=record.began,
            # A clock that went back, or was another host's, takes no time.
            down=max(record.began - last.at, 0),
            status=last.status,
            reached=last.step,
            resumed=record.first_step,
            lost=lost,
            processes=record.processes,
        )

    def intervals(self) -> Iterator[tuple[int, int, dict[str, int]]]:
        """Yields (beginning, end, nanoseconds by category) from line to line; times since `began`.

        The time between starts is an interval too. The intervals add up to `nanoseconds`.
        """
        at = 0
        for start, begins in zip(self._starts, self.beginnings, strict=True):
            if begins > at:
                yield at, begins, {DOWN: begins - at}
            at = begins
            before: Mapping[str, int] = {}
            for record in start.records:
                spent = {n: v - before.get(n, 0) for n, v in record.nanoseconds.items()}
                counted = max(before.get(STEPS, 0), min(record.steps, start.kept))
                spent[LOST] = record.steps - counted
                spent[STEPS] = spent.get(STEPS, 0) - spent[LOST]
                length = sum(spent.values())
                if length:
                    yield at, at + length, spent
                at, before = at + length, record.nanoseconds


def _by_start(records: Sequence[Record]) -> list[list[Record]]:
    """Records of one start after another."""
    groups: list[list[Record]] = []
    for record in records:
        last = groups[-1][-1] if groups else None
        if last is not None and (record.start, record.began) == (last.start, last.began):
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups
