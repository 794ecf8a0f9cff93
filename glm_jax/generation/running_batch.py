"""A batch that rows enter and leave between any two steps; all its shapes are known beforehand.

    read     x0 x1 x2 x3 | x4 x5 ..     a prompt is read in chunks, into a row of its own
    enter    slot 1                     the row becomes a slot of the batch
    step     all slots choose an id     of the same shape whoever is there
    leave    slot 1

A row's greedy ids are the same bits alone and in any company. A step always has all slots, and the
sums of one row do not depend on the others. A prompt is read alone, in chunks that begin at
multiples of their width, so that the keys and values of a chunk depend on the prompt up to its end
alone, whether they are computed or taken from an earlier prompt that begins alike.

The server is a caller (`glm_jax.serving.scheduler`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from glm_jax.errors import UserError
from glm_jax.generation import running_programs as programs
from glm_jax.generation.asked import arrays_of
from glm_jax.generation.bans import host_array
from glm_jax.generation.cache import LayerCache, bucket
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.running_programs import (
    DRAWS,
    EVERYTHING,
    GREEDY,
    LOWERED,
    Code,
    Scores,
    Told,
)
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Asked, Room, Slots, ids_seen, stack
from glm_jax.sharding.mesh import on_host
from glm_jax.tokenizers.ids import shared

# One for each program of `running_programs`.
_EACH = Sampling(), Sampling(1.0), Sampling(repetition_penalty=2.0), Sampling(1.0, top_k=1)
# Alternatives of an id where scores are asked for.
MOST_ALTERNATIVES = 20


@dataclasses.dataclass
class Reading:
    """A prompt that is being read.

    Attributes:
      prompt: of the row.
      copies: as of `row_keys`.
      tokens: [1, T] its ids, padded.
      last: number of ids to read: the last id of a text that goes on is fed by the first step.
      caches: of this row; shared with other rows until the first chunk is read.
      done: number of ids whose keys and values are in the caches.
      reused: how many of them were taken from an earlier prompt.
    """

    prompt: Prompt
    copies: int
    tokens: np.ndarray
    last: int
    caches: list[LayerCache]
    done: int = 0
    reused: int = 0

    @property
    def complete(self) -> bool:
        """Whether the row can enter."""
        return self.done >= self.last


@dataclasses.dataclass
class _Known:
    """A prompt that was read: ids of whole chunks, and the caches that hold them."""

    ids: list[int]
    caches: list[LayerCache]


class RunningBatch:
    """Slots of a model.

    Attributes:
      engine: of the model.
      size: most ids of a row, prompt and answers together.
      width: ids of a prompt that are read at once; a model that fills blanks reads all at once.
      rows: the prompt in each slot; None: free.
    """

    def __init__(
        self,
        engine: Engine,
        slots: int,
        size: int,
        width: int | None = None,
        blanks: int = 16,
        ends: int = 8,
        kept: int = 4,
    ):
        """Allocates the caches of `slots` rows and of one that is read; `kept` more come later.

        Args:
          engine: of the model.
          slots: rows that are decoded together.
          size: most ids of a row; rounded up to a multiple of `width`.
          width: None: 64 on a CPU, 256 elsewhere.
          blanks: most blanks of a text.
          ends: most end ids of a prompt.
          kept: most prompts whose caches are kept for later ones that begin alike; of a causal
            model.
        """
        self.engine, self._fills = engine, engine.config.fills_blanks
        self.width = width or (64 if jax.default_backend() == "cpu" else 256)
        self.size = bucket(size) if self._fills else -(-size // self.width) * self.width
        self._room = Room(self.size, self.size, blanks if self._fills else 1, ends)
        self._kept = 0 if self._fills else kept
        self.rows: list[Prompt | None] = [None] * slots
        self.reset()

    def _empty(self, slots: int) -> tuple[list[LayerCache], Slots]:
        """The caches of a row that has read nothing, and free slots."""
        nobody = Prompt([0], Limits([], 1), Sampling(), [0] if self._fills else [])
        one = self.engine.start([nobody], self._room, least=1)
        seen = jax.numpy.zeros((1, self.engine.config.vocab_size), bool)
        one = dataclasses.replace(one, seen=seen, rules=programs.with_code(one.rules, GREEDY))
        return one.caches, self.engine.free(one, slots)

    def reset(self) -> None:
        """Frees all slots, in new caches; what was kept of earlier prompts is forgotten."""
        number = len(self.rows)
        self.rows = [None] * number
        self._alternatives = [False] * number
        self._known: list[_Known] = []
        # The old caches go first: there may be no room for both.
        for name in ("_none", "_slots"):
            vars(self).pop(name, None)
        self._none, self._slots = self._empty(number)

    @property
    def intact(self) -> bool:
        """Whether the arrays of the rows are there: a program that fails may have taken them."""
        return not any(leaf.is_deleted() for leaf in jax.tree.leaves((self._none, self._slots)))

    @property
    def free(self) -> list[int]:
        """Indices of free slots."""
        return [slot for slot, row in enumerate(self.rows) if row is None]

    def check(self, prompt: Prompt) -> None:
        """Raises UserError if a prompt, already checked against the model, does not fit a slot."""
        number = len(prompt.blanks) if self._fills else 1
        needed = len(prompt.ids) + number * prompt.limits.max_new_tokens
        if needed > self.size:
            raise UserError(
                f"a prompt of {len(prompt.ids)} tokens and {number * prompt.limits.max_new_tokens} "
                f"new ones do not fit the {self.size} of a row"
            )
        if number > self._room.blanks:
            raise UserError(f"a text may have {self._room.blanks} blanks; this one has {number}")
        if len(prompt.limits.end_ids) > self._room.ends:
            raise UserError(f"{len(prompt.limits.end_ids)} end ids; at most {self._room.ends}")
        if isinstance(prompt.how, Sampling) and prompt.how.no_repeat_ngram == 0:
            return
        raise UserError("a running batch has no code for beam search and no_repeat_ngram")

    def begin(self, prompt: Prompt, copies: int = 0, afresh: bool = False) -> Reading:
        """A row for a prompt, on what earlier prompts have left of its beginning. Computes nothing.

        Args:
          prompt: that `check` accepts.
          copies: as of `row_keys`.
          afresh: leave out what earlier prompts have left: all ids are to be scored.
        """
        last = len(prompt.ids) - (not self._fills)
        longest = bucket(len(prompt.ids)) if self._fills else self.size
        tokens, _ = stack([prompt.ids], longest, 1)
        reading = Reading(prompt, copies, tokens, last, self._none)
        for known in [] if afresh else self._known:
            same = min(shared(known.ids, prompt.ids), last) // self.width * self.width
            if same > reading.done:
                reading.done = reading.reused = same
                reading.caches = known.caches
        return reading

    def read(self, reading: Reading, alternatives: bool = False) -> Scores | None:
        """Reads the next chunk; all of the prompt if the model fills blanks.

        Args:
          reading: not complete.
          alternatives: score the ids of the prompt that follow those of this chunk.

        Returns:
          Scores of `width` ids, from prompt.ids[done + 1] on, those behind the prompt without
          meaning; `done` as it was before.
        """
        start = reading.done
        # The first chunk is written into caches of its own.
        shares = start == reading.reused
        caches = programs.copied(reading.caches) if shares else reading.caches
        config, params = self.engine.plain
        width = reading.tokens.shape[1] if self._fills else self.width
        reading.caches, scores = programs.read(
            params,
            caches,
            reading.tokens,
            host_array([start]),
            host_array([reading.last]),
            config=config,
            width=width,
            most=MOST_ALTERNATIVES if alternatives else 0,
        )
        reading.done = min(start + width, reading.last)
        if reading.complete:
            self._keep(reading)
        return scores

    def _keep(self, reading: Reading) -> None:
        """Keeps the whole chunks of a prompt, in place of what is a beginning of it."""
        ids = list(reading.prompt.ids[: reading.last // self.width * self.width])
        if not ids or not self._kept:
            return
        others = [one for one in self._known if one.ids != ids[: len(one.ids)]]
        self._known = [*others, _Known(ids, reading.caches)][-self._kept :]

    def forget(self, prompt: Prompt) -> None:
        """Keeps nothing of a prompt that could not be read: its caches may be no good."""
        ids = prompt.ids
        self._known = [one for one in self._known if one.ids != list(ids[: len(one.ids)])]

    def enter(self, reading: Reading, alternatives: bool = False) -> int:
        """Puts a complete reading into a free slot and returns the slot; steps count it from now.

        `alternatives`: score the ids that are chosen.
        """
        slot, prompt = self.free[0], reading.prompt
        token = prompt.start_id if self._fills else prompt.ids[-1]
        self._slots = programs.enter(
            self._slots,
            host_array([slot]),
            reading.caches,
            host_array([reading.last]),
            host_array([token]),
            self._asked(prompt, reading.copies),
            answers=self._room.answers,
            fills=self._fills,
        )
        self.rows[slot], self._alternatives[slot] = prompt, alternatives
        return slot

    def _asked(self, prompt: Prompt, copies: int) -> Asked:
        asked = arrays_of(self.engine.config, [prompt], self._room, 1, copies)
        seen = ids_seen([prompt.ids], 1, self.engine.config.vocab_size)
        return programs.plain(asked)._replace(seen=seen)

    def step(self) -> Told:
        """Each row chooses an id; does not wait for the device. `told` gets the values."""
        config, params = self.engine.for_rows(len(self.rows))
        rest = dataclasses.replace(self._slots, caches=[])
        logits, caches = programs.logits(params, self._slots.caches, rest, config=config)
        most = MOST_ALTERNATIVES if any(self._alternatives) else 0
        rest, told = programs.advance(rest, logits, code=code_for(self.rows), most=most)
        self._slots = dataclasses.replace(rest, caches=caches)
        return told

    def leave(self, slots: Sequence[int]) -> None:
        """Frees slots, whether their rows have ended or not."""
        for slot in slots:
            self.rows[slot], self._alternatives[slot] = None, False
        self._slots = self.engine.release(self._slots, slots)

    def compile(self, progress: Callable[[str], object] = lambda _: None) -> None:
        """Compiles all that will be run, by running it; the batch must be empty."""
        for length in self._lengths():
            progress(f"prompts of {length:,} tokens")
            for alternatives in (False,) if self._fills else (False, True):
                # Two prompts alike: the second is read on what is kept of the first.
                for copies in (0, 1):
                    self._try(length, Sampling(seed=2**40), copies, alternatives)
        for number, how in enumerate(_EACH):
            progress(f"steps: {number + 1} of {len(_EACH)}")
            for alternatives in (False, True):
                self._try(2, how, 0, alternatives)
        self._known = []

    def _lengths(self) -> list[int]:
        """Of prompts, one for each shape that reading has."""
        most = self.size - 1
        if not self._fills:
            return [min(2 * self.width + 2, most)]
        most = min(most, self.engine.config.table_rows)
        return sorted({min(bucket(length), most) for length in range(1, most + 1)})

    def _try(self, length: int, how: Sampling, copies: int, alternatives: bool) -> None:
        """Runs a row for one step."""
        prompt = Prompt([1] * length, Limits([1], 1), how, [0] if self._fills else [])
        reading = self.begin(prompt, copies)
        while not reading.complete:
            self.read(reading, alternatives and not self._fills)
        slot = self.enter(reading, alternatives)
        on_host_all(self.step())
        self.leave([slot])


Values = TypeVar("Values", Told, Scores)


def on_host_all(values: Values) -> Values:
    """The same with numpy arrays; waits for the device."""
    return jax.tree.map(on_host, values)


def code_for(rows: Sequence[Prompt | None]) -> Code:
    """The least code that serves all rows."""
    hows = [row.how for row in rows if row is not None and isinstance(row.how, Sampling)]
    if any(not how.greedy and (how.top_k or how.top_p < 1) for how in hows):
        return EVERYTHING
    if any(how.repetition_penalty != 1 or how.min_new_tokens for how in hows):
        return LOWERED
    return GREEDY if all(how.greedy for how in hows) else DRAWS
