"""Options of decoding.

    Marks(mask_ids, start_id)             which ids are blanks, and what begins a span
    Limits(end_ids, max_new_tokens)       when an answer ends
    Sampling(..) or BeamSearch(..)        how ids are chosen

`decoding` makes a Sampling or a BeamSearch of keyword arguments: temperature=0.7, num_beams=4.
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
      gmask_id: the one of `mask_ids` that a prompt's answer belongs to where a prompt has several;
        None: the first.
    """

    mask_ids: Sequence[int]
    start_id: int
    gmask_id: int | None = None


@dataclasses.dataclass(frozen=True)
class Limits:
    """When an answer ends.

    Attributes:
      end_ids: ids that end it, and are not part of it.
      max_new_tokens: number of ids of the longest answer.
      max_total_tokens: most ids of all answers of a row together, end ids counted; blanks that are
        not reached stay empty. None: no such limit.
    """

    end_ids: Sequence[int]
    max_new_tokens: int
    max_total_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """How beam search chooses ids.

    Attributes:
      num_beams: K, the number of beams.
      length_penalty: an answer of n ids has the score log-probability / n^length_penalty. 0: the
        sum over its ids, which favours short answers; 1: the mean over its ids. -5 to 5.
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


class _Common(TypedDict, total=False):
    """The fields of `Sampling` and `BeamSearch`, without those that `Options` adds."""

    seed: int
    repetition_penalty: float
    min_new_tokens: int
    no_repeat_ngram: int
    num_beams: int
    length_penalty: float


class Options(_Common, total=False):
    """The fields of `Sampling` and `BeamSearch` as keyword arguments."""

    temperature: float
    top_k: int
    top_p: float


class GenerateOptions(_Common, total=False):
    """The keyword arguments of `LanguageModel.generate` that are not in its signature."""

    on_token: Callable[[int, int], None] | None


class TextOptions(Options, total=False):
    """The keyword arguments that `fill_blanks` and `generate` of `LanguageModel` share."""

    max_new_tokens: int
    how: Sampling | BeamSearch | None


class FillOptions(TextOptions, total=False):
    """The keyword arguments of `LanguageModel.fill_blanks`."""

    mask_ids: Sequence[int] | None
    start_id: int | None
    end_ids: Sequence[int] | None
    max_total_tokens: int | None


class CompleteOptions(TextOptions, total=False):
    """The keyword arguments of `LanguageModel.generate`, without on_token."""

    eos_ids: Sequence[int] | None


class FillingOptions(TypedDict, total=False):
    """The keyword arguments of `LanguageModel.search_fillings`."""

    max_new_tokens: int
    min_new_tokens: int
    no_repeat_ngram: int


class SearchOptions(FillingOptions, total=False):
    """The keyword arguments of `LanguageModel.fill` with candidates."""

    num_beams: int | None


class CandidateOptions(FillingOptions, total=False):
    """The keyword arguments of `fill_candidates`; those of sampling it refuses or ignores."""

    temperature: float
    top_k: int
    top_p: float
    seed: int


def decoding(
    how: Sampling | BeamSearch | None,
    # `Any`: the values are a user's; `Sampling` and `BeamSearch` check their types.
    options: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
) -> Sampling | BeamSearch:
    """How to choose ids: `how` itself, or an object made of keyword arguments.

    Args:
      how: None if keyword arguments are given instead.
      options: keyword arguments out of `Options`.
      parameters: values of those options that are parameters of the caller, with its defaults.

    Returns:
      A `BeamSearch` if num_beams is above 1; otherwise a `Sampling`, greedy by default.

    Raises:
      UserError: `how` together with options, several beams together with sampling or a repetition
        penalty, or a value out of range.
      TypeError: an option that does not exist.
    """
    parameters, plain = parameters or {}, Sampling()
    if how is not None:
        changed = {name for name in parameters if parameters[name] != getattr(plain, name)}
        if both := {*options, *changed}:
            raise UserError(
                f"how={how!r} excludes options by name; leave out {', '.join(sorted(both))}"
            )
        return how
    given = {**options, **parameters}
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
            f"num_beams={search.num_beams} searches and does not sample: temperature must be 0; "
            f"got {sampling.temperature}"
        )
    if sampling.repetition_penalty != 1.0:
        raise UserError(
            f"repetition_penalty={sampling.repetition_penalty} is not for num_beams above 1; "
            "use no_repeat_ngram"
        )
    return search


def check_beams(search: BeamSearch, config: ModelConfig, end_ids: Sequence[int]) -> None:
    """Raises UserError if the vocabulary is too small for so many beams."""
    most = config.vocab_size // (1 + max(1, len(end_ids)))
    if search.num_beams > most:
        raise UserError(
            f"num_beams={search.num_beams} is too much for a vocabulary of {config.vocab_size}; "
            f"at most {most}"
        )
