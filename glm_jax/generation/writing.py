"""Text in, text out: `LanguageModel.fill` and `.complete`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Unpack, cast, overload

from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.candidates import Filling, search_fillings
from glm_jax.generation.describing import describe
from glm_jax.generation.ends import chat_ends_of
from glm_jax.generation.given import ENCODE, check_encoded, given
from glm_jax.generation.options import (
    BeamSearch,
    CompleteOptions,
    FillOptions,
    Limits,
    Marks,
    SearchOptions,
)
from glm_jax.generation.texts import Candidate, complete, fill, fill_candidates
from glm_jax.models.trees import Params
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.ids import id_row
from glm_jax.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


class Writing:
    """The methods of `LanguageModel` that take and return text."""

    config: ResolvedModel
    params: Params
    special: SpecialTokens | None
    tokenizer: Tokenizer | None

    def search_fillings(
        self,
        ids: Sequence[int],
        num_beams: int,
        max_new_tokens: int = 64,
        min_new_tokens: int = 0,
        no_repeat_ngram: int = 0,
    ) -> list[Filling]:
        """Ways to fill all blanks of a text together, the most probable first.

        Args:
          ids: as of `fill_blanks`, one text.
          num_beams: number of beams, and of the ways returned at most.
          max_new_tokens, min_new_tokens, no_repeat_ngram: as of `fill_blanks`.
        """
        special = self.special
        masks = given("mask_ids", None, special and special.masks)
        row = id_row("search_fillings", ids, f"lm.fill(text, candidates=5), or {ENCODE}")
        check_encoded(row, masks, self.tokenizer)
        return search_fillings(
            self._model._engine(),
            row,
            marks=Marks(masks, given("start_id", None, special and special.start)),
            limits=Limits(
                given("end_ids", None, special and (special.end, special.eos)), max_new_tokens
            ),
            search=BeamSearch(num_beams, 0.0, min_new_tokens, no_repeat_ngram),
        )

    # The first two overlap for an int of value 1: only a literal 1 can be told from other ints.
    @overload
    def fill(  # type: ignore[overload-overlap]
        self, text: str, candidates: Literal[1] = 1, **options: Unpack[FillOptions]
    ) -> str: ...

    @overload
    def fill(
        self, text: str, candidates: int, **options: Unpack[SearchOptions]
    ) -> list[Candidate]: ...

    def fill(self, text, candidates=1, **options):
        """Fills the blanks of a text, as `python -m glm_jax.generate` does.

            fill("The [MASK] dog.")                  "The quick dog."
            fill("The [MASK] dog.", candidates=2)    [Candidate("The quick dog.", ("quick",), 0.2),
                                                      Candidate("The old dog.", ("old",), 0.1)]

        Args:
          text: holds at least one of [MASK], [gMASK] and [sMASK].
          candidates: above 1: the number of ways to fill the text, found by beam search, the most
            probable first. Fewer are returned if fewer are found.
          **options: of `fill_blanks`; with candidates only max_new_tokens, num_beams,
            min_new_tokens and no_repeat_ngram.

        Returns:
          The filled text; with candidates above 1 a list of `Candidate`.

        Raises:
          UserError: ids instead of text, no blank, a causal model, a model without a tokenizer.
        """
        if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 1:
            raise UserError(f"candidates must be a whole number, at least 1; got {candidates!r}")
        if candidates == 1:
            return fill(self._model, text, **options)
        return fill_candidates(self._model, text, candidates, **options)

    def complete(self, text: str, **options: Unpack[CompleteOptions]) -> str:
        """A causal model's continuation of a text, as by `python -m glm_jax.generate`.

            complete("the light")    " was good"

        Args:
          text: white space at its end is dropped.
          **options: of `generate`, without on_token.

        Returns:
          The continuation, without `text`.

        Raises:
          UserError: ids instead of text, a model that fills blanks, a model without a tokenizer.
        """
        return complete(self._model, text, **options)

    @property
    def chat_end_ids(self) -> list[int]:
        """The ids that end an answer in a chat, of the tokenizer and of the checkpoint's files."""
        ends = self.tokenizer.chat_end_ids if self.tokenizer else ()
        return chat_ends_of(self._model._origin, ends)

    def __repr__(self) -> str:
        return describe(self._model)

    @property
    def _model(self) -> "LanguageModel":
        """This object by its own class, which alone has these methods."""
        return cast("LanguageModel", self)
