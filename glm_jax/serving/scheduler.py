"""The scheduler: one thread owns the model, and rows of all requests share its steps.

    each turn    1. rows that were cancelled or are late leave
                 2. one piece of other work with the model (a beam search)
                 3. one chunk of one prompt is read; a row that has been read enters a free slot
                 4. all slots choose an id; the ids of the step before are handed on meanwhile

So a long prompt holds the others up for one chunk at a time, and an id reaches its client while the
device computes the next one.
"""

import collections
import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, TypeVar

import jax

from glm_jax.generation.memory_left import available_bytes
from glm_jax.generation.running_batch import Reading, RunningBatch, on_host_all
from glm_jax.generation.running_programs import Told
from glm_jax.serving.asking import (
    Ask,
    ClosingError,
    Counts,
    Echoed,
    Ended,
    Event,
    FullError,
    Reason,
)
from glm_jax.serving.memory import check_caches, default_context
from glm_jax.serving.scheduled_row import Row, chosen, scored
from glm_jax.serving.turns import Turns
from glm_jax.sharding.mesh import mesh_of

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[], object]

# Prompts whose caches are kept for later ones that begin alike.
_KEPT = 4
# Seconds of a row before any has ended: for Retry-After.
_FIRST_GUESS = 5.0


class _ClosedError(Exception):
    """The scheduler was closed while it compiled."""


@dataclasses.dataclass
class _Step:
    """A step whose values were not looked at, and who was in which slot then."""

    told: Told
    rows: dict[int, Row]


class Scheduler:
    """Decodes the rows of many requests together; methods are for any thread (`asking.Decoder`).

    Attributes:
      context: most ids of a row, prompt and answers together.
      cache_bytes: of all caches on one device.
    """

    def __init__(
        self,
        model: "LanguageModel",
        slots: int = 8,
        context: int | None = None,
        queue: int = 256,
        **sizes: int,
    ):
        """Allocates the caches; nothing is compiled before `start`.

        Args:
          model: its parameters must not change while the scheduler runs.
          slots: rows that are decoded together.
          context: most ids of a row; None: `default_context`.
          queue: most rows that wait.
          **sizes: width, blanks, ends and kept of `RunningBatch`.

        Raises:
          UserError: the device has too little memory for the caches.
        """
        size = context or default_context(model.config)
        kept = sizes.setdefault("kept", _KEPT)
        left = available_bytes(next(iter(jax.tree.leaves(model.params)[0].devices())))
        mesh = mesh_of(model.params)
        self.cache_bytes = check_caches(model.config, slots, size, kept, left, mesh)
        self._batch = RunningBatch(model._engine(), slots, size, **sizes)
        self.context, self._queue = self._batch.size, queue
        self._changed = threading.Condition()
        self._waiting: Turns[Row] = Turns()
        self._calls: collections.deque[tuple[Work, Future]] = collections.deque()
        self._reading: tuple[Row, Reading | None] | None = None
        self._inside: dict[int, Row] = {}
        self._step: _Step | None = None
        self._state: Literal["compiling", "ready", "draining", "failed"] = "compiling"
        self._closed = False
        self._thread: threading.Thread | None = None
        self._totals = collections.Counter[str]()
        self._ended = collections.Counter[Reason]()
        self._seconds = _FIRST_GUESS

    def start(
        self, warm: Sequence[Work] = (), on_ready: Callable[[float], object] = lambda _: None
    ) -> None:
        """Starts the thread, which compiles first; rows may be submitted at once.

        Args:
          warm: other work that compiles something, run after the batch's own.
          on_ready: called with the seconds that took.
        """
        self._thread = threading.Thread(
            target=self._run, args=(warm, on_ready), name="scheduler", daemon=True
        )
        self._thread.start()

    def submit(self, asks: Sequence[Ask], on_event: Callable[[int, Event], None]) -> list[Row]:
        """Queues the rows of one request, all or none; see `asking.Decoder`.

        Raises:
          UserError: a prompt that no slot can take; none was queued.
        """
        for ask in asks:
            self._batch.check(ask.prompt)
        rows = [
            Row(ask, functools.partial(on_event, index), self._changed)
            for index, ask in enumerate(asks)
        ]
        with self._changed:
            self._check_room(len(rows))
            for row in rows:
                self._waiting.put(row.ask.client, row)
            self._changed.notify()
        return rows

    def call(self, work: Callable[[], Result], client: str = "") -> "Future[Result]":
        """Runs work between two steps; see `asking.Decoder`."""
        future: Future[Result] = Future()
        with self._changed:
            self._check_room(1)
            self._calls.append((work, future))
            self._changed.notify()
        return future

    def counts(self) -> Counts:
        """Numbers for /health and /metrics."""
        with self._changed:
            return Counts(
                self._state,
                len(self._batch.rows),
                len(self._inside),
                self._num_waiting(),
                self._totals["prompt"],
                self._totals["reused"],
                self._totals["generated"],
                self._totals["steps"],
                dict(self._ended),
            )

    def drain(self, seconds: float) -> bool:
        """Takes no more rows, and waits until those there are have ended.

        Returns:
          Whether all have within this time.
        """
        limit = time.monotonic() + seconds
        with self._changed:
            if self._state != "failed":
                self._state = "draining"
            self._changed.notify()
        while self._busy() and time.monotonic() < limit and self._state != "failed":
            time.sleep(0.02)
        return not self._busy()

    def close(self) -> None:
        """Ends the thread; rows that have not ended are cancelled."""
        with self._changed:
            self._closed = True
            if self._state != "failed":
                self._state = "draining"
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _check_room(self, number: int) -> None:
        if self._state == "draining" or self._closed:
            raise ClosingError("the server ends and takes no more requests")
        if self._state == "failed":
            raise ClosingError("the server has failed")
        waiting = self._num_waiting()
        if waiting and waiting + number > self._queue:
            raise FullError(max(1.0, self._seconds * waiting / len(self._batch.rows)))

    def _num_waiting(self) -> int:
        return len(self._waiting) + len(self._calls) + (self._reading is not None)

    def _busy(self) -> bool:
        with self._changed:
            return bool(self._num_waiting() or self._inside)

    def _run(self, warm: Sequence[Work], on_ready: Callable[[float], object]) -> None:
        """The thread."""
        begun = time.monotonic()
        try:
            self._batch.compile(self._compiling)
            for work in warm:
                self._compiling("other work")
                work()
            with self._changed:
                if self._state == "compiling":
                    self._state = "ready"
            on_ready(time.monotonic() - begun)
            while self._turn():
                pass
        except _ClosedError:
            pass
        except BaseException:
            log.exception("the scheduler failed")
            with self._changed:
                self._state = "failed"
        finally:
            self._give_up("failed" if self._state == "failed" else "cancelled")

    def _compiling(self, what: str) -> None:
        """Called before each program; a server that ends does not wait for the rest."""
        log.debug("compiling %s", what)
        if self._closed:
            raise _ClosedError

    def _give_up(self, reason: Reason) -> None:
        """Ends all that is there."""
        with self._changed:
            rows = [*self._waiting.remove(lambda _: True), *self._inside.values()]
            rows += [self._reading[0]] if self._reading else []
            calls = [future for _, future in self._calls]
            self._inside, self._reading, self._step = {}, None, None
            self._calls.clear()
        for row in rows:
            self._end(row, reason)
        for future in calls:
            if not future.cancel():
                future.set_exception(ClosingError("the server ends"))

    def _turn(self) -> bool:
        """One turn; False: closed."""
        with self._changed:
            while not (self._closed or self._num_waiting() or self._inside or self._step):
                self._changed.wait()
            if self._closed:
                return False
        self._drop()
        self._work()
        lost = False
        try:
            self._read()
            step = self._steps()
            if self._step is not None:
                self._hand_on(self._step)
            self._step = step
        except Exception:
            # The caches were donated to a program that failed: all rows in them are lost.
            log.exception("a step failed")
            lost = True
        if lost:  # not while the error is handled, whose frames hold arrays
            self._fail()
        return True

    def _drop(self) -> None:
        """Lets go of rows that were cancelled or are late, wherever they are."""
        with self._changed:
            gone = self._waiting.remove(lambda row: row.over is not None)
            if self._reading is not None and self._reading[0].over is not None:
                gone.append(self._reading[0])
                self._reading = None
        left = [slot for slot, row in self._inside.items() if row.over is not None]
        gone += [self._leave(slot) for slot in left]
        if left:
            self._batch.leave(left)
        for row in gone:
            self._end(row, row.over or "cancelled")

    def _work(self) -> None:
        """Runs one call that waits."""
        with self._changed:
            work, future = self._calls.popleft() if self._calls else (None, None)
        if work is None or future is None or not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    def _read(self) -> None:
        """Reads a chunk of a prompt, and lets the row enter behind the last one.

        A fault ends this row alone, unless the caches of the others went with it.
        """
        with self._changed:
            if self._reading is None and self._waiting and self._batch.free:
                self._reading = self._waiting.take(), None
        if self._reading is None:
            return
        row, reading = self._reading
        try:
            self._read_on(row, reading or self._begin(row))
        except Exception:
            if not self._batch.intact:
                raise
            log.exception("a prompt could not be read")
            with self._changed:
                self._reading = None
            self._batch.forget(row.ask.prompt)
            self._end(row, "failed")

    def _begin(self, row: Row) -> Reading:
        reading = self._batch.begin(row.ask.prompt, row.ask.copy, afresh=row.ask.echo)
        row.reused = reading.reused
        with self._changed:
            self._totals["prompt"] += len(row.ask.prompt.ids)
            self._totals["reused"] += reading.reused
            self._reading = row, reading
        return reading

    def _read_on(self, row: Row, reading: Reading) -> None:
        if not reading.complete:
            start = reading.done
            scores = self._batch.read(reading, alternatives=row.ask.echo)
            if scores is not None:
                ids = row.ask.prompt.ids[start + 1 : reading.done + 1]
                row.echoed += scored(ids, on_host_all(scores), row.ask.alternatives)
        if reading.complete:
            if row.ask.echo:
                row.tell(Echoed(tuple(row.echoed)))
            slot = self._batch.enter(reading, row.ask.alternatives is not None)
            with self._changed:
                self._inside[slot], self._reading = row, None

    def _steps(self) -> _Step | None:
        """Begins a step if any row is inside."""
        if not self._inside:
            return None
        self._totals["steps"] += 1
        return _Step(self._batch.step(), dict(self._inside))

    def _hand_on(self, step: _Step) -> None:
        """Tells each row of a step its id, and frees the slots of rows that ended in it."""
        told, left = on_host_all(step.told), list[int]()
        for slot, row in step.rows.items():
            if row.ended:
                continue
            if told.grew[slot]:
                self._totals["generated"] += 1
                row.tell(chosen(told, slot, row.ask))
            if told.ended[slot]:
                self._leave(slot)
                left.append(slot)
                self._end(row, "end" if told.ends[slot] else "length")
        if left:
            self._batch.leave(left)

    def _leave(self, slot: int) -> Row:
        with self._changed:
            return self._inside.pop(slot)

    def _end(self, row: Row, reason: Reason) -> None:
        with self._changed:
            self._ended[reason] += 1
            self._seconds += 0.1 * (time.monotonic() - row.begun - self._seconds)
        row.tell(Ended(reason, row.reused))

    def _fail(self) -> None:
        """Ends the rows whose caches are lost; others go on in new ones."""
        with self._changed:
            rows = list(self._inside.values())
            rows += [self._reading[0]] if self._reading else []
            self._inside, self._reading, self._step = {}, None, None
        for row in rows:
            self._end(row, "failed")
        self._batch.reset()
