"""From a request to rows for the scheduler: how ids are chosen, how many, and until when."""

import collections
import dataclasses
import functools
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

from glm_jax.generation.ends import eos_ids_of, marks_of
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt, text_prompts
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.suggested import suggested
from glm_jax.serving.asking import Ask
from glm_jax.serving.errors import ApiError, bad_request
from glm_jax.serving.protocol import Decoding
from glm_jax.serving.served import Served
from glm_jax.tokenizers.protocol import Tokenizer

Result = TypeVar("Result")

# Texts are encoded beside the event loop, and not by so many threads that it has no turn.
_ENCODERS = 2


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is reported beside ids.

    Attributes:
      alternatives: as of `Ask`; None: no log-probabilities.
      echo: those of the prompt too.
    """

    alternatives: int | None = None
    echo: bool = False


class Preparer:
    """Prepares the requests of one model.

    Attributes:
      served: it, its scheduler and its limits.
    """

    def __init__(self, served: Served):
        self.served = served
        self._encoders: anyio.CapacityLimiter | None = None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises ApiError: there is none."""
        if self.served.model.tokenizer is None:
            raise bad_request("the model has no tokenizer, and text needs one")
        return self.served.model.tokenizer

    @functools.cached_property
    def text_ends(self) -> list[int]:
        """Ids that end a text."""
        model = self.served.model
        return eos_ids_of(model._origin, model.special) or []

    @functools.cached_property
    def suggested(self) -> dict[str, Any]:  # `Any`: `Sampling` checks what a file says
        """Options of sampling in the checkpoint's generation_config.json, where it samples."""
        found = suggested(self.served.model._origin)
        return {"temperature": 1.0, **found} if found else {}

    @functools.cached_property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat format."""
        return bool(self.served.model.tokenizer and self.tokenizer.chat_fingerprint)

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in a thread: a long text is encoded while others are streamed."""
        self._encoders = self._encoders or anyio.CapacityLimiter(_ENCODERS)
        return await anyio.to_thread.run_sync(work, limiter=self._encoders)

    def check_model(self, name: str | None) -> None:
        """Raises ApiError unless it is the name of the model, or none."""
        if name not in (None, self.served.name):
            raise ApiError(
                404,
                f"there is no model {str(name)[:100]!r} here; there is {self.served.name!r}",
                "model",
                "model_not_found",
            )

    def sampling(self, request: Decoding) -> Sampling:
        """How ids are chosen; what is not given is as the checkpoint suggests, else greedy."""
        options = dict(self.suggested)
        for name in ("temperature", "top_p", "top_k", "repetition_penalty"):
            if (value := getattr(request, name)) is not None:
                options[name] = value
        if options.get("top_k") == -1:  # as in vLLM: all
            options["top_k"] = 0
        seed = secrets.randbits(63) if request.seed is None else request.seed
        return Sampling(**options, seed=seed, min_new_tokens=request.min_tokens or 0)

    def new_tokens(self, wanted: int | None, least: int, length: int, default: int | None) -> int:
        """Number of ids of the longest answer.

        Args:
          wanted: what the request says.
          least: its min_tokens.
          length: of the prompt in ids.
          default: where the request says nothing; None: what the context leaves.

        Raises:
          ApiError: more than the context or the server allows, or less than `least`.
        """
        limits, context = self.served.limits, self.served.decoder.context
        room = context - length
        if limits.new_tokens is not None and (wanted or 0) > limits.new_tokens:
            raise bad_request(
                f"max_tokens must be at most {limits.new_tokens:,} on this server; got {wanted:,}",
                "max_tokens",
            )
        if room < 1 or (wanted or 0) > room:
            answer = "one token" if wanted is None else f"max_tokens={wanted:,}"
            raise bad_request(
                f"the prompt has {length:,} tokens, and with {answer} of an answer does not fit "
                f"the context of {context:,}",
                "max_tokens" if room >= 1 else None,
                "context_length_exceeded",
            )
        if wanted is None:
            wanted = min(one for one in (room, limits.new_tokens, default) if one is not None)
        if least > wanted:
            raise bad_request(
                f"min_tokens must be at most max_tokens={wanted:,}; got {least:,}", "min_tokens"
            )
        return wanted

    def check_rows(self, prompts: int, n: int) -> None:
        """Raises ApiError where a request has more rows than the server allows."""
        most = self.served.limits.rows
        if prompts * n > most:
            raise bad_request(
                f"a request must ask for at most {most} answers on this server; got "
                f"{prompts} x n={n}",
                "n" if prompts == 1 else "prompt",
            )

    def prompt(self, row: Sequence[int], limits: Limits, how: Sampling) -> Prompt:
        """A prompt, checked.

        Raises:
          UserError: it cannot be continued.
        """
        model = self.served.model
        marks = marks_of(model._origin, model.special)
        return text_prompts([row], model.config, limits, how, marks)[0]

    def asks(
        self, prompts: Sequence[Prompt], n: int, scores: Scores, client: str, start: float
    ) -> list[Ask]:
        """Rows of a request: n of each prompt in turn.

        Args:
          prompts: checked.
          n: number of answers to each.
          scores: what is reported.
          client: whose they are.
          start: when the request came, of `time.monotonic()`.
        """
        copies: collections.Counter[tuple[int, ...]] = collections.Counter()
        found = []
        for prompt in prompts:
            ids = tuple(prompt.ids)
            for _ in range(n):
                found.append(
                    Ask(
                        prompt,
                        scores.alternatives,
                        scores.echo,
                        copies[ids],
                        client,
                        start + self.served.limits.seconds,
                    )
                )
                copies[ids] += 1
        return found


def client_of(request: Request) -> str:
    """Whose request it is: the number of its API key, else its address."""
    return str(getattr(request.state, "client", ""))


def now() -> float:
    return time.monotonic()
