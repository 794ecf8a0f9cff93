"""A row whose cache is kept from prompt to prompt, as the turns of a conversation need it.

    first prompt   x0 x1 x2           prefill x0 x1, feed x2 -> a, feed a -> b, feed b -> end
    cached         x0 x1 x2 a b
    next prompt    x0 x1 x2 a b y0 y1     prefill y0, feed y1 -> c, ..
    another one    x0 x1 z0 z1            the cache is cut back to x0 x1: prefill z0, feed z1 -> ..

What is kept is the longest beginning that the cached ids and the next prompt share; an answer that
is encoded again to the same ids is part of it. A model that fills blanks keeps nothing: all tokens
of its prompt attend to each other, so that one more token changes the keys and values of all.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax

from glm_jax.generation.cache import CHUNK, bucket, power_of_two
from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.prompts import Prompt, text_prompts
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Room, Slots
from glm_jax.sharding.mesh import on_host
from glm_jax.tokenizers.ids import shared

if TYPE_CHECKING:
    from glm_jax.generation.engine import Engine

# Slots of the first cache. It doubles from there, since each size is compiled anew.
_LEAST_SIZE = 512

Ended = Literal["end", "length", "stopped"]


class Continued(NamedTuple):
    """What followed a prompt.

    Attributes:
      ids: the new ids, without the end id.
      ended: by an end id ("end"), at the longest length ("length"), or by the caller ("stopped").
    """

    ids: list[int]
    ended: Ended


def never() -> bool:
    """For `stop`: does not stop."""
    return False


class KeptRow:
    """A row of a model.

    Attributes:
      engine: of the model.
      cached: ids whose keys and values are kept.
    """

    def __init__(self, engine: "Engine", marks: Marks | None = None):
        """Allocates nothing; `marks` are the special ids of a model that fills blanks."""
        self.engine, self._marks = engine, marks
        self.cached: list[int] = []
        self._slots: Slots | None = None

    def forget(self) -> None:
        """Gives the cache up, and its memory back."""
        self.cached, self._slots = [], None

    def continue_(
        self,
        ids: Sequence[int],
        limits: Limits,
        sampling: Sampling,
        on_id: Callable[[int], object] | None = None,
        stop: Callable[[], bool] = never,
    ) -> Continued:
        """Continues a prompt, as `generate_rows` does, on what the cache holds of it.

        Args:
          ids: the whole prompt, one id at least.
          limits: which ids end the answer, and its longest length.
          sampling: how ids are chosen.
          on_id: called with each new id that is not an end id. What it raises passes through, and
            the row stays usable.
          stop: asked before each step and each chunk of the prefill; True ends the answer there.

        Raises:
          UserError: as `generate_rows`.
        """
        (prompt,) = text_prompts([ids], self.engine.config, limits, sampling, self._marks)
        chosen: list[int] = []
        slots = self._prefilled(prompt, stop)
        while slots is not None and not stop():
            # An interrupt within the step, which donates the slots, leaves an empty row.
            self.forget()
            slots = self.engine.run(slots, 1)
            chosen.append(int(on_host(slots.chosen)[0, len(chosen)]))
            self._keep(slots, [*prompt.ids, *chosen][:-1])
            if chosen[-1] in limits.end_ids:
                return Continued(chosen[:-1], "end")
            if on_id is not None:
                on_id(chosen[-1])
            if len(chosen) == limits.max_new_tokens:
                return Continued(chosen, "length")
        return Continued(chosen, "stopped")

    def _prefilled(self, prompt: Prompt, stop: Callable[[], bool]) -> Slots | None:
        """Slots before the first step; None: stopped before."""
        engine, ids = self.engine, prompt.ids
        if engine.config.fills_blanks:
            return engine.start([prompt])
        size = self._size(len(ids) + prompt.limits.max_new_tokens)
        room = Room(size, bucket(prompt.limits.max_new_tokens), 1, len(prompt.limits.end_ids))
        slots, kept = self._slots, shared(self.cached, ids[:-1])
        self.forget()
        if slots is None:
            slots, kept = engine.start([dataclasses.replace(prompt, ids=ids[:1])], room), 0
        # A chunk at a time, so that one can stop.
        for end in [*range(kept + CHUNK, len(ids) - 1, CHUNK), len(ids) - 1]:
            if stop():
                return None
            begun = dataclasses.replace(prompt, ids=ids[: end + 1])
            slots, kept = engine.resume(slots, [begun], [kept], room), end
            jax.block_until_ready(slots.length)
            self._keep(slots, ids[:end])
        return slots

    def _keep(self, slots: Slots, cached: Sequence[int]) -> None:
        if not self.engine.config.fills_blanks:
            self.cached, self._slots = list(cached), slots

    def _size(self, needed: int) -> int:
        """Slots of the cache: those there are, or as many times twice as are needed."""
        present = 0 if self._slots is None else self._slots.caches[0].keys.shape[2]
        if needed <= present:
            return present
        most = bucket(self.engine.config.max_positions)
        return min(max(_LEAST_SIZE, power_of_two(needed)), most)
