"""What the HTTP side asks of the scheduler, and what it is told: the border between two threads.

    Ask ->  scheduler (one thread owns the model)  -> Echoed, Chosen, Chosen, .., Ended

Only these objects cross the border, and they hold no array of jax.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from glm_jax.generation.prompts import Prompt

# Alternatives that are computed for an id; OpenAI's `top_logprobs` allows as many.
MOST_ALTERNATIVES = 20

Result = TypeVar("Result")

Reason = Literal["end", "length", "cancelled", "deadline", "failed"]


@dataclasses.dataclass(frozen=True)
class Ask:
    """One row to decode.

    Attributes:
      prompt: already checked (`glm_jax.generation.prompts`); its `how` is a `Sampling`.
      alternatives: how many of the most probable ids are reported with each id, up to
        MOST_ALTERNATIVES; None: no log-probabilities at all.
      echo: report the prompt's own ids too, from the second on (`Echoed`); of a causal model, and
        with `alternatives`.
      copy: number of rows of the same request before this one that have the same ids: copies draw
        differently.
      client: whose it is; clients take turns where rows wait.
      deadline: in seconds of `time.monotonic()`; None: none.
    """

    prompt: "Prompt"
    alternatives: int | None = None
    echo: bool = False
    copy: int = 0
    client: str = ""
    deadline: float | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """An id, its log-probability in nats under the model (temperature 1, nothing excluded), and the
    most probable ids in its stead, best first."""

    id: int
    log_probability: float
    alternatives: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class Echoed:
    """The prompt's ids but the first, scored; once, before any `Chosen`."""

    scores: tuple[Scored, ...]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The next id.

    Attributes:
      id: it.
      answer: number of the answer it belongs to; 0 unless the prompt has several blanks.
      ends: it is an end id, which is not part of the answer's text.
      scored: where log-probabilities were asked for.
    """

    id: int
    answer: int = 0
    ends: bool = False
    scored: Scored | None = None


@dataclasses.dataclass(frozen=True)
class Ended:
    """Nothing follows.

    Attributes:
      reason: an end id ("end"), the longest length ("length"), the caller ("cancelled"), the
        deadline, or a fault of the server ("failed").
      reused: ids of the prompt whose keys and values were known from before.
    """

    reason: Reason
    reused: int = 0


Event = Echoed | Chosen | Ended


class FullError(Exception):
    """Too many rows wait.

    Attributes:
      retry_after: seconds after which there may be room.
    """

    def __init__(self, retry_after: float):
        super().__init__(f"too many requests wait; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class ClosingError(Exception):
    """The server ends and takes no more requests."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the scheduler has done so far, and does now.

    Attributes:
      state: "compiling" (rows wait), "ready", "draining" (no new rows) or "failed".
      slots, busy: rows that can be decoded together; those that are.
      waiting: rows in the queue, those whose prompt is being read included.
      prompt_tokens, reused_tokens, generated_tokens: of all rows; reused ones are those of prompts
        that were not computed again.
      steps: of decoding.
      ended: number of rows by `Ended.reason`.
    """

    state: Literal["compiling", "ready", "draining", "failed"]
    slots: int
    busy: int
    waiting: int
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    steps: int
    ended: Mapping[Reason, int]


class Ticket(Protocol):
    """A row that was submitted."""

    def cancel(self) -> None:
        """Frees its slot before the next step; `Ended` follows. Of one that has ended: nothing."""


class Decoder(Protocol):
    """What the HTTP side sees of `glm_jax.serving.scheduler.Scheduler`; methods are for any thread.

    Attributes:
      context: most ids of a row, prompt and answers together.
    """

    context: int

    def submit(
        self, asks: Sequence[Ask], on_event: Callable[[int, Event], None]
    ) -> Sequence[Ticket]:
        """Queues the rows of one request, all or none; does not wait.

        Args:
          asks: at least one.
          on_event: called with the index of an ask and what happened to it, on the scheduler's
            thread: it must hand the event on and return.

        Raises:
          FullError, ClosingError: none was queued.
        """

    def call(self, work: Callable[[], Result], client: str = "") -> "Future[Result]":
        """Runs `work`, which computes with the model, on the scheduler's thread between two steps.

        What it raises, the future raises. Cancelled before it runs, it does not run.

        Raises:
          FullError, ClosingError: as `submit`.
        """

    def counts(self) -> Counts:
        """Numbers for /health and /metrics."""
