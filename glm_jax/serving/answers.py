"""One answer while its ids come: text up to a stop string, log-probabilities, how it ended.

Chosen(5) Chosen(9) Ended("end")   ->   "he" "llo" "", finish_reason "stop"
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from glm_jax.generation.streaming import GrowingText
from glm_jax.serving.asking import Chosen, Ended, Reason, Scored
from glm_jax.serving.errors import ApiError, failed
from glm_jax.serving.stops import StopText

FinishReason = Literal["stop", "length", "tool_calls"]

# A deadline is a limit of length in seconds: what there is then is the answer.
_FINISH: dict[Reason, FinishReason] = {"end": "stop", "length": "length", "deadline": "length"}


@dataclasses.dataclass(frozen=True)
class Token:
    """A scored token of an answer.

    Attributes:
      scored: with its id.
      ends: it ends the answer, and is no part of its text.
      at: characters of the answer that were certain before it.
    """

    scored: Scored
    ends: bool
    at: int


class Answer:
    """The state of one row.

    Attributes:
      count: ids so far, an end id included.
      stopped: a stop string has been met, and the row is to be cancelled.
      finish_reason: None while it goes on.
      reused: ids of the prompt that were known from before; when it has ended.
    """

    def __init__(self, text: GrowingText, stops: Sequence[str] = (), min_tokens: int = 0):
        """Args:
        text: of its ids.
        stops: texts before which it ends.
        min_tokens: number of ids in whose text none is looked for.
        """
        self.count, self.reused = 0, 0
        self.finish_reason: FinishReason | None = None
        self._text, self._stops, self._min_tokens = text, StopText(stops), min_tokens
        self._certain = 0
        self._tokens: list[Token] = []

    @property
    def stopped(self) -> bool:
        return self._stops.found

    def take(self, event: Chosen | Ended) -> str:
        """Takes what happened; returns the text that is certain with it.

        Raises:
          ApiError: the row has failed, or the server has ended it.
        """
        if isinstance(event, Ended):
            self.reused = event.reused
            return self._end(event)
        if self.stopped:
            return ""
        self.count += 1
        if event.scored is not None:
            self._tokens.append(Token(event.scored, event.ends, self._certain))
        return "" if event.ends else self._passed(self._text.push(event.id))

    def take_tokens(self) -> list[Token]:
        """The scored tokens whose text has been passed on since the last call."""
        if self.finish_reason is not None and not self.stopped:
            found, self._tokens = self._tokens, []
            return found
        # Others wait as their text does: in front of a stop string, or for the end of a character.
        found = [one for one in self._tokens if one.at < self._stops.length]
        self._tokens = self._tokens[len(found) :]
        return found

    def _passed(self, text: str) -> str:
        self._certain += len(text)
        if self.count <= self._min_tokens:
            return self._stops.skip(text)
        said = self._stops.push(text)
        if self.stopped:
            self.finish_reason = "stop"
        return said

    def _end(self, event: Ended) -> str:
        if self.stopped:
            return ""
        if event.reason == "failed":
            raise failed()
        if event.reason == "cancelled":  # not by this side: it looks at nothing that it cancelled
            raise ApiError(503, "the server ends before the answer did", retry_after=5)
        said = self._passed(self._text.finish()) + self._stops.finish()
        self.finish_reason = self.finish_reason or _FINISH[event.reason]
        return said
