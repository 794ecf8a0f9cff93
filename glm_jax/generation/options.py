"""What a caller may ask of decoding, as objects that travel whole.

    Marks(mask_ids, start_id)             which ids are blanks, and what begins a span
    Limits(end_ids, max_new_tokens)       when an answer ends
    Sampling(..) or BeamSearch(..)        how ids are chosen

`decoding` makes the last of the short forms: temperature=0.7, num_beams=4.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from glm_jax.checks import whole_number
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.bans import check_bans
from glm_jax.generation.given import check_length_penalty
from glm_jax.generation.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Marks:
    """The special ids around a blank.

    Attributes:
      mask_ids: ids that are blanks.
      start_id: first input of a span.
    """

    mask_ids: Sequence[int]
    start_id: int


@dataclasses.dataclass(frozen=True)
class Limits:
    """When an answer ends.

    Attributes:
      end_ids: ids that end it, and are not part of it.
      max_new_tokens: its longest length.
      max_total_tokens: most ids of all answers of a row together, end ids counted; what is left
        after them stays empty. None: no such limit.
    """

    end_ids: Sequence[int]
    max_new_tokens: int
    max_total_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """How to search.

    Attributes:
      num_beams: K, answers that are followed at once.
      length_penalty: an answer of n ids is worth its log-probability / n^length_penalty; 0: the
        plain sum, which likes short ones; 1: the mean of its ids; -5 to 5.
      min_new_tokens, no_repeat_ngram: as of `Sampling`.
    """

    num_beams: int
    length_penalty: float = 1.0
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0

    def __post_init__(self):
        values = {
            "num_beams": whole_number("num_beams", self.num_beams, least=1),
            "length_penalty": check_length_penalty(self.length_penalty),
            **check_bans(self.min_new_tokens, self.no_repeat_ngram),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


class Further(TypedDict, total=False):
    """Fields of `Sampling` and `BeamSearch` by name, less those of `Options`."""

    seed: int
    repetition_penalty: float
    min_new_tokens: int
    no_repeat_ngram: int
    num_beams: int
    length_penalty: float


class Options(Further, total=False):
    """The fields of `Sampling` and `BeamSearch` by name."""

    temperature: float
    top_k: int
    top_p: float


class FurtherWithToken(Further, total=False):
    """What `LanguageModel.generate` takes beside its own parameters."""

    on_token: Callable[[int, int], None] | None


def decoding(
    how: Sampling | BeamSearch | None,
    options: Mapping[str, Any],
    short: Mapping[str, Any] | None = None,
) -> Sampling | BeamSearch:
    """How to choose ids: the object that was given, or that of the short forms.

    Args:
      how: None where options say it.
      options: of `Options`, those that were given by name.
      short: those that the caller has a parameter for, with their values.

    Returns:
      A search where num_beams is above 1; otherwise a `Sampling`, greedy by default.

    Raises:
      UserError: both, several beams and draws or a repetition penalty, or a value out of range.
      TypeError: an option that does not exist.
    """
    short, plain = short or {}, Sampling()
    if how is not None:
        said = {*options, *(name for name in short if short[name] != getattr(plain, name))}
        if said:
            raise UserError(f"how={how!r} says it all; leave out {', '.join(sorted(said))}")
        return how
    given = {**options, **short}
    beams = {name: given.pop(name) for name in ("num_beams", "length_penalty") if name in given}
    sampling = Sampling(**given)
    search = BeamSearch(
        **{"num_beams": 1, **beams},
        min_new_tokens=sampling.min_new_tokens,
        no_repeat_ngram=sampling.no_repeat_ngram,
    )
    if search.num_beams == 1:
        return sampling
    if not sampling.greedy:
        raise UserError(
            f"num_beams={search.num_beams} draws nothing: temperature must be 0; "
            f"got {sampling.temperature}"
        )
    if sampling.repetition_penalty != 1.0:
        raise UserError(
            f"repetition_penalty={sampling.repetition_penalty} is not for num_beams above 1; "
            "use no_repeat_ngram"
        )
    return search


def check_beams(search: BeamSearch, config: ModelConfig, end_ids: Sequence[int]) -> None:
    """Raises UserError where the vocabulary is too small for so many beams."""
    most = config.vocab_size // (1 + max(1, len(end_ids)))
    if search.num_beams > most:
        raise UserError(
            f"num_beams={search.num_beams} is too much for a vocabulary of {config.vocab_size}; "
            f"at most {most}"
        )
