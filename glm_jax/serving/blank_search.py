"""The most probable ways to fill a text, for a request: beam search of few shapes.

The number of beams is the server's, twice `RequestLimits.candidates`, and rows have one of SIZES,
so that all programs are compiled before the first request (`warm`):

    a text of 20 ids, 2 blanks of 16      20 + 2 x 16 + 64 = 116     a row of 128
    a text of 90 ids, 4 blanks of 16      90 + 4 x 16 + 64 = 218     a row of 256
    more than that                        refused
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax

from glm_jax.errors import UserError
from glm_jax.generation.cache import bucket, power_of_two
from glm_jax.generation.candidates import Filling, search_fillings
from glm_jax.generation.memory_left import available_bytes
from glm_jax.generation.options import BeamSearch, Limits
from glm_jax.generation.slots import Room
from glm_jax.serving import blank_protocol as protocol
from glm_jax.serving.blank_ids import special_ids, spelled, tokenizer_of
from glm_jax.serving.blank_texts import BlankText
from glm_jax.serving.memory import row_bytes
from glm_jax.serving.served import Served
from glm_jax.training.memory import readable

# Ids of a row of a search; the longest answer, which is also written as a whole; most blanks.
SIZES, _ANSWER, _BLANKS = (128, 256), 64, 16
# Caches while beams are put in another order: those before, and those after.
_COPIES = 2


def warm(served: Served) -> list[Callable[[], object]]:
    """Work that compiles all that a search may run, for `Scheduler.start`."""
    if not served.model.config.fills_blanks or served.model.tokenizer is None:
        return []
    marks, ends = special_ids(served)
    mask, found = next(iter(marks.mask_ids)), list[Callable[[], object]]()
    for width, size in itertools.product((64, 128), SIZES):
        length = min(width, served.model.config.table_rows, size - _ANSWER - 3 * 2)
        if bucket(length) != width:
            continue
        # From the second blank on there are as many rows as fillings, from the third on before too.
        ids = [mask] * 3 + [served.model.tokenizer.special.eos] * (length - 3)
        run = Search(served, BlankText.read("[MASK]" * 3), ids, Limits(ends, 2))
        found.append(functools.partial(run.run, _room(size, len(ends))))
    return found


def _room(size: int, ends: int) -> Room:
    return Room(size, _ANSWER, _BLANKS, ends)


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
        """Sizes of the slots: those of the text, rounded up.

        Raises:
          UserError: the text is too long for a search, or has too many blanks.
        """
        number, longest = len(self.text.blanks), self.limits.max_new_tokens
        if longest > _ANSWER:
            raise UserError(f"with candidates max_tokens is at most {_ANSWER}; got {longest}")
        if number > _BLANKS:
            raise UserError(f"with candidates a text has at most {_BLANKS} blanks; got {number}")
        needed = len(self.ids) + number * longest + _ANSWER
        for size in SIZES:
            if needed <= size:
                return _room(size, len(self.limits.end_ids))
        raise UserError(
            f"candidates are for short texts: {len(self.ids)} tokens and {number} answers of at "
            f"most {longest} are more than {SIZES[-1] - _ANSWER}; a smaller max_tokens may do"
        )

    def run(self, room: Room | None = None) -> list[Filling]:
        """Searches; on the thread that owns the model. `room`: None: that of the text.

        Raises:
          UserError: the device has too little memory for so many beams.
        """
        model, room = self.served.model, room or self.room
        rows = power_of_two(self.beams) * self.beams if len(self.text.blanks) > 1 else self.beams
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
