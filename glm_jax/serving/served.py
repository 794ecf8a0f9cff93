"""What the routes answer with: a model, its scheduler, and the limits of a request."""

import dataclasses
from typing import TYPE_CHECKING

from glm_jax.checks import finite_number, whole_number
from glm_jax.serving.asking import Decoder

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """Bounds on one request; beyond them it is refused by name.

    Attributes:
      body_bytes: of the JSON text.
      rows: prompts times answers (`n`) of one request.
      new_tokens: most ids of an answer that may be asked for; None: what the context leaves.
      seconds: time from submission to the last id; what there is then is the answer.
      candidates: most fillings of a text with blanks; a search has twice as many beams.
    """

    body_bytes: int = 1 << 20
    rows: int = 64
    new_tokens: int | None = None
    seconds: float = 600.0
    candidates: int = 5

    def __post_init__(self):
        for name in ("body_bytes", "rows", "candidates"):
            whole_number(name, getattr(self, name), least=1)
        if self.new_tokens is not None:
            whole_number("new_tokens", self.new_tokens, least=1)
        finite_number("seconds", self.seconds, above=0)


@dataclasses.dataclass(frozen=True)
class Served:
    """A model behind HTTP.

    Attributes:
      model: for its config, its tokenizer and its special ids; only the scheduler's thread computes
        with it.
      decoder: the scheduler.
      name: of the model in requests and in /v1/models.
      limits: of one request.
    """

    model: "LanguageModel"
    decoder: Decoder
    name: str
    limits: RequestLimits = RequestLimits()
