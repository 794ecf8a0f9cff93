"""A row of the scheduler: what was asked for, and how its caller is told what became of it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from glm_jax.generation.running_programs import Scores, Told
from glm_jax.serving.asking import Ask, Chosen, Ended, Event, Reason, Scored

log = logging.getLogger(__name__)


class Row:
    """A row from submission to its end: the `Ticket` of its caller.

    Attributes:
      ask: what is asked for.
      ended: nothing more is told.
      cancelled: its caller wants no more.
    """

    def __init__(self, ask: Ask, tell: Callable[[Event], None], changed: threading.Condition):
        self.ask, self.ended, self.cancelled = ask, False, False
        self.begun, self.reused, self.echoed = time.monotonic(), 0, list[Scored]()
        self._tell, self._changed = tell, changed

    def cancel(self) -> None:
        """Frees its slot before the next step; `Ended` follows. Of one that has ended: nothing."""
        with self._changed:
            self.cancelled = True
            self._changed.notify()

    @property
    def over(self) -> Reason | None:
        """Why it is to end now, whatever has been decoded; None: it goes on."""
        if self.cancelled:
            return "cancelled"
        late = self.ask.deadline is not None and time.monotonic() > self.ask.deadline
        return "deadline" if late else None

    def tell(self, event: Event) -> None:
        """Hands an event on. A listener that fails loses its row, and nobody else notices."""
        if self.ended:
            return
        self.ended = isinstance(event, Ended)
        try:
            self._tell(event)
        except Exception:
            log.exception("a listener failed")
            self.cancelled = True


def scored(ids: Sequence[int], scores: Scores, alternatives: int | None) -> list[Scored]:
    """The first ids of some that were scored on the host, with so many alternatives each."""
    most = alternatives or 0
    return [
        Scored(
            id_,
            float(scores.chosen[index]),
            tuple(
                zip(
                    scores.ids[index, :most].tolist(),
                    scores.values[index, :most].tolist(),
                    strict=True,
                )
            ),
        )
        for index, id_ in enumerate(ids)
    ]


def chosen(told: Told, slot: int, ask: Ask) -> Chosen:
    """What a step, whose values are on the host, did to a row in `slot`."""
    id_, found = int(told.ids[slot]), None
    if ask.alternatives is not None and told.scores is not None:
        row = Scores(*(array[slot : slot + 1] for array in told.scores))
        (found,) = scored([id_], row, ask.alternatives)
    return Chosen(id_, int(told.answer[slot]), bool(told.ends[slot]), found)
