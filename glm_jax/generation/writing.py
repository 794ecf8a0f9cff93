"""What a `LanguageModel` does with text: fills its blanks, goes on with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from glm_jax.config.model import ResolvedModel
from glm_jax.generation.candidates import Filling, search_fillings
from glm_jax.generation.describing import describe
from glm_jax.generation.given import ENCODE, check_read, given
from glm_jax.generation.options import BeamSearch, Limits, Marks
from glm_jax.generation.texts import Candidate, complete, fill
from glm_jax.models.trees import Params
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.ids import id_row
from glm_jax.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


class Writing:
    """Methods of `LanguageModel`."""

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
          num_beams: how many are followed, and returned at most.
          others: as of `fill_blanks`.
        """
        special = self.special
        masks = given("mask_ids", None, special and special.masks)
        row = id_row("search_fillings", ids, f"lm.fill(text, candidates=5), or {ENCODE}")
        check_read(row, masks, self.tokenizer)
        return search_fillings(
            self._whole._engine(),
            row,
            marks=Marks(masks, given("start_id", None, special and special.start)),
            limits=Limits(
                given("end_ids", None, special and (special.end, special.eos)), max_new_tokens
            ),
            search=BeamSearch(num_beams, 0.0, min_new_tokens, no_repeat_ngram),
        )

    def fill(self, text: str, candidates: int = 1, **options: Any) -> str | list[Candidate]:
        """Fills the blanks of a text, which is framed and read as `glm_jax.generate` does it.

            fill("The [MASK] dog.")                  "The quick dog."
            fill("The [MASK] dog.", candidates=2)    [Candidate("The quick dog.", ("quick",), 0.2),
                                                      Candidate("The old dog.", ("old",), 0.1)]

        Args:
          text: with one of [MASK], [gMASK] and [sMASK] at least.
          candidates: above 1: so many ways to fill it, searched for, the most probable first;
            fewer where no more are found.
          **options: of `fill_blanks`; with candidates, max_new_tokens, num_beams, min_new_tokens
            and no_repeat_ngram.

        Returns:
          The text, or the candidates.

        Raises:
          UserError: ids, no blank, a causal model, a model without a tokenizer.
        """
        return fill(self._whole, text, candidates, **options)

    def complete(self, text: str, **options: Any) -> str:
        """What follows a text, by a causal model; framed and read as `glm_jax.generate` does it.

            complete("the light")    " was good"

        Args:
          text: white space at its end is left out.
          **options: of `generate`.

        Returns:
          New text only.

        Raises:
          UserError: ids, a model that fills blanks, a model without a tokenizer.
        """
        return complete(self._whole, text, **options)

    def __repr__(self) -> str:
        return describe(self._whole)

    @property
    def _whole(self) -> "LanguageModel":
        return cast("LanguageModel", self)
