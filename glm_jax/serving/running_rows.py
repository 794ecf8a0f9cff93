"""Rows of a request and the answers that they become, step by step.

async for index, said in running.steps():      said: new text of answer `index`
    ..
"""

from collections.abc import AsyncIterator, Sequence

from glm_jax.serving.answers import Answer
from glm_jax.serving.asking import Ask, Chosen, Decoder, Echoed, Ended, Scored
from glm_jax.serving.metrics import TokenClock
from glm_jax.serving.rows import Rows


class Running:
    """The answers of a request while their rows are decoded.

    Attributes:
      answers: one a row.
      echoed: the scores of each row's prompt, once they have come.
    """

    def __init__(
        self, decoder: Decoder, asks: list[Ask], answers: Sequence[Answer], clock: TokenClock
    ):
        """Submits the rows; called on the event loop.

        Raises:
          FullError, ClosingError: none was queued.
        """
        self.answers = list(answers)
        self.echoed: list[tuple[Scored, ...]] = [() for _ in asks]
        self._clock = clock
        self._rows = Rows(decoder, asks)

    def close(self) -> None:
        """Cancels the rows that go on."""
        self._rows.cancel()

    async def steps(self) -> AsyncIterator[tuple[int, str]]:
        """(index of an answer, its new text, which may be empty) until all have ended.

        A row whose answer has met a stop string is cancelled. What comes for one row while others
        are looked at comes as one step.

        Raises:
          ApiError: a row has failed; the others are cancelled.
        """
        try:
            async for events in self._rows.events():
                texts: dict[int, str] = {}
                for index, event in events:
                    if isinstance(event, Echoed):
                        self.echoed[index] = event.scores
                        said = ""
                    else:
                        said = self._take(index, event)
                    texts[index] = texts.get(index, "") + said
                for step in texts.items():
                    yield step
        finally:
            self.close()

    async def finish(self) -> list[str]:
        """The whole text of each answer."""
        texts = [""] * len(self.answers)
        async for index, said in self.steps():
            texts[index] += said
        return texts

    def _take(self, index: int, event: Chosen | Ended) -> str:
        answer = self.answers[index]
        was_stopped = answer.stopped
        if isinstance(event, Chosen) and not was_stopped:
            self._clock.token(index)
        said = answer.take(event)
        if answer.stopped and not was_stopped:
            self._rows.cancel(index)
        return said


def usage(prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, object]:
    """OpenAI's account of a request.

    Args:
      prompt_tokens: of all prompts, each counted once.
      answers: that have ended.
    """
    made = sum(answer.count for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": made,
        "total_tokens": prompt_tokens + made,
        "prompt_tokens_details": {"cached_tokens": sum(answer.reused for answer in answers)},
    }
