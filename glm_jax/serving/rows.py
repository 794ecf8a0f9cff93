"""The rows of one request, from the scheduler's thread to the event loop.

scheduler's thread               event loop
on_event(0, Chosen(5))           one wake-up
on_event(1, Chosen(9))           [(0, Chosen(5)), (1, Chosen(9)), (0, Ended("end"))]
on_event(0, Ended("end"))
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import TracebackType

from glm_jax.serving.asking import Ask, Decoder, Ended, Event, Ticket


class Rows:
    """Rows that are being decoded; used as a context, whose end cancels those that go on.

    async with Rows(decoder, asks) as rows:
        async for events in rows.events():
            ..
    """

    def __init__(self, decoder: Decoder, asks: list[Ask]):
        """Submits the rows; called on the event loop.

        Raises:
          FullError, ClosingError: none was queued.
        """
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[tuple[int, Event]] = collections.deque()
        self._woken = asyncio.Event()
        self._is_waking = False
        self._open = len(asks)
        self._tickets: Sequence[Ticket] = decoder.submit(asks, self._on_event) if asks else []

    async def __aenter__(self) -> "Rows":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def cancel(self, index: int | None = None) -> None:
        """Cancels a row, or all; their `Ended` follows. Of those that have ended: nothing."""
        for ticket in self._tickets if index is None else [self._tickets[index]]:
            ticket.cancel()

    async def events(self) -> AsyncIterator[list[tuple[int, Event]]]:
        """What has happened since the last time, with the index of each row; until all ended."""
        while self._open:
            await self._woken.wait()
            self._woken.clear()
            found = [self._waiting.popleft() for _ in range(len(self._waiting))]
            self._open -= sum(isinstance(event, Ended) for _, event in found)
            if found:
                yield found

    def _on_event(self, index: int, event: Event) -> None:
        """Called on the scheduler's thread."""
        self._waiting.append((index, event))
        if self._is_waking:  # the loop has yet to look
            return
        self._is_waking = True
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        # Before the queue is read: an event that comes now wakes the loop again.
        self._is_waking = False
        self._woken.set()
