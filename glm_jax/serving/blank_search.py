"""The most probable ways to fill a text, for a request: beam search with a fixed number of beams.

The number is the server's, twice `RequestLimits.candidates`, and sizes are rounded up, so that
requests for two and for five candidates, of texts about as long, run the same compiled programs.
"""

import dataclasses
import math

import jax

from glm_jax.errors import UserError
from glm_jax.generation.asked import room_for
from glm_jax.generation.cache import power_of_two
from glm_jax.generation.candidates import Filling, search_fillings
from glm_jax.generation.memory_left import available_bytes
from glm_jax.generation.options import BeamSearch, Limits
from glm_jax.generation.prompts import blank_prompts
from glm_jax.generation.slots import Room
from glm_jax.serving import blank_protocol as protocol
from glm_jax.serving.blank_ids import special_ids, spelled, tokenizer_of
from glm_jax.serving.blank_texts import BlankText
from glm_jax.serving.memory import row_bytes
from glm_jax.serving.served import Served
from glm_jax.training.memory import readable

# Caches while beams are put in another order: those before, and those after.
_COPIES = 2


@dataclasses.dataclass(frozen=True)
class Search:
    """A text to be searched.

    Attributes:
      served: the model.
      text, ids: the text, and its ids.
      limits: of its answers.
    """

    served: Served
    text: BlankText
    ids: list[int]
    limits: Limits

    @property
    def beams(self) -> int:
        """Fewer than the server's number where the vocabulary is too small for it."""
        most = self.served.model.config.vocab_size // (1 + len(self.limits.end_ids))
        return max(1, min(2 * self.served.limits.candidates, most))

    @property
    def room(self) -> Room:
        """Sizes of the slots: those of the text, rounded up."""
        how = BeamSearch(self.beams, 0.0)
        marks, _ = special_ids(self.served)
        prompts = blank_prompts([self.ids], marks, self.limits, how)
        return room_for(self.served.model.config, prompts)

    def run(self) -> list[Filling]:
        """Searches; on the thread that owns the model.

        Raises:
          UserError: the device has too little memory for so many beams.
        """
        model, room = self.served.model, self.room
        rows = power_of_two(self.beams) * self.beams if room.blanks > 1 else self.beams
        needed = _COPIES * rows * row_bytes(model.config, room.size)
        device = next(iter(jax.tree.leaves(model.params)[0].devices()))
        left = available_bytes(device)
        if left is not None and needed > left:
            raise UserError(
                f"a search with {self.beams} beams over this text takes {readable(needed)}, and "
                f"the device has {readable(left)} left: a shorter text, fewer blanks, or a smaller "
                "max_tokens"
            )
        marks, _ = special_ids(self.served)
        search = BeamSearch(self.beams, 0.0)
        return search_fillings(
            model._engine(), self.ids, marks=marks, limits=self.limits, search=search, room=room
        )

    def candidates(self, found: list[Filling]) -> list[tuple[protocol.Candidate, int]]:
        """Fillings as text, of equal ones the most probable, each with its number of ids."""
        tokenizer = tokenizer_of(self.served)
        best: dict[tuple[str, ...], tuple[protocol.Candidate, int]] = {}
        for one in found:
            answers = tuple(spelled(tokenizer, ids).strip() for ids in one.answers)
            if answers in best:
                continue
            text = self.text.filled(tokenizer, one.answers)
            candidate = protocol.Candidate(
                text=text, answers=list(answers), probability=math.exp(one.log_probability)
            )
            best[answers] = candidate, sum(len(ids) + 1 for ids in one.answers)
        return list(best.values())
