"""Rollouts: several answers to each of many prompts, with the log-probabilities they were drawn at.

    prompts 2, copies 3       rows    0 1 2  3 4 5       prompt of row r: r // 3
    4 slots                   start   0 1 2  3           each prompt is prefilled once, for all
                              later       4      5       a row enters where another has ended

A row draws by its number alone, whatever its slot and its neighbours.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generation.bans import host_array
from glm_jax.generation.cache import power_of_two
from glm_jax.generation.slots import Room, Slots
from glm_jax.sharding.mesh import on_host

if TYPE_CHECKING:
    from glm_jax.generation.engine import Engine
    from glm_jax.generation.prompts import Prompt

# Steps between two looks at which rows have ended, while others wait.
_STEPS = 16


@dataclasses.dataclass(frozen=True)
class RolledOut:
    """One answer.

    Attributes:
      ids: as they were chosen, the end id among them.
      log_probs: [n] float32, of each id under the policy at its temperature.
      complete: whether an end id ended it, and not the limit.
    """

    ids: list[int]
    log_probs: np.ndarray
    complete: bool


def roll_out(
    engine: "Engine",
    prompts: "Sequence[Prompt]",
    copies: int,
    key: jax.Array,
    room: Room,
    slots: int | None = None,
) -> list[RolledOut]:
    """Answers prompts.

    Args:
      engine: of the policy.
      prompts: one at least, all with the same limits and the same way to choose, checked.
      copies: answers to each.
      key: from which the key of each row is folded, by its number.
      room: sizes of the slots; the same in each call, so that nothing is compiled again.
      slots: rows that are decoded at once; None: all.

    Returns:
      The answers to the first prompt, then those to the next.
    """
    return _Queue(engine, prompts, copies, key, room, slots).answers()


class _Queue:
    """The rows of a rollout, those in slots and those that wait."""

    def __init__(
        self,
        engine: "Engine",
        prompts: "Sequence[Prompt]",
        copies: int,
        key: jax.Array,
        room: Room,
        slots: int | None,
    ):
        self._engine, self._prompts, self._copies = engine, prompts, copies
        self._key, self._room = key, room
        self._total = len(prompts) * copies
        self._number = min(slots or self._total, self._total)
        self._in_slot = np.full(self._number, -1)
        self._entered = 0
        # Prompts that are prefilled at once, and the rows that those prefilled last are for.
        self._wave = max(1, self._number // copies)
        self._ready: Slots | None = None
        self._first_ready = self._end_of_ready = 0
        self._slots: Slots | None = None
        self._done: dict[int, RolledOut] = {}

    def answers(self) -> list[RolledOut]:
        """Runs until all rows have ended."""
        while len(self._done) < self._total:
            self._enter()
            assert self._slots is not None  # rows have entered
            waiting = self._entered < self._total
            self._slots = self._engine.run(self._slots, _STEPS if waiting else None)
            self._collect(self._slots)
        return [self._done[row] for row in range(self._total)]

    def _enter(self) -> None:
        """Puts rows that wait into free slots."""
        free = np.flatnonzero(self._in_slot < 0).tolist()
        while free and self._entered < self._total:
            if self._entered == self._end_of_ready:
                self._prefill()
            assert self._ready is not None  # prefilled
            count = min(len(free), self._end_of_ready - self._entered)
            rows = np.arange(self._entered, self._entered + count)
            source = np.full(self._number, -1, np.int32)
            source[free[:count]] = (rows - self._first_ready) // self._copies
            self._in_slot[free[:count]] = rows
            if self._slots is None:
                self._slots = self._engine.free(self._ready, self._number)
            numbers = np.maximum(self._in_slot, 0).astype(np.uint32)
            self._slots = _entered(self._slots, self._ready, host_array(source), numbers, self._key)
            free, self._entered = free[count:], self._entered + count

    def _prefill(self) -> None:
        """Prefills the prompts of the next rows."""
        first = self._entered // self._copies
        prompts = self._prompts[first : first + self._wave]
        slots = self._engine.start(prompts, self._room, least=power_of_two(self._wave))
        self._ready = _scored(slots)
        self._first_ready = self._entered
        self._end_of_ready = self._entered + len(prompts) * self._copies

    def _collect(self, slots: Slots) -> None:
        """Takes the answers of rows that have ended, whose slots are free then."""
        assert slots.log_probs is not None  # by `_scored`
        running, counts = on_host(slots.running), on_host(slots.count)
        ended = [slot for slot in np.flatnonzero(self._in_slot >= 0) if not running[slot]]
        if not ended:
            return
        chosen, log_probs = on_host(slots.chosen), on_host(slots.log_probs)
        for slot in ended:
            count, row = int(counts[slot]), int(self._in_slot[slot])
            ids = chosen[slot, :count].tolist()
            ends = self._prompts[row // self._copies].limits.end_ids
            self._done[row] = RolledOut(ids, log_probs[slot, :count].copy(), ids[-1] in ends)
            self._in_slot[slot] = -1


@jax.jit
def _scored(slots: Slots) -> Slots:
    """The same slots, with room for log-probabilities."""
    zeros = jnp.zeros(slots.chosen.shape, jnp.float32)
    return dataclasses.replace(slots, log_probs=zeros)


@functools.partial(jax.jit, donate_argnames="slots")
def _entered(
    slots: Slots, ready: Slots, source: jax.Array, rows: jax.Array, key: jax.Array
) -> Slots:
    """Puts copies of prefilled rows into slots.

    Args:
      slots: S of them.
      ready: prefilled rows.
      source: [S] int32, which of them comes into each slot; -1: none, the slot stays.
      rows: [S] uint32, the number of the row in each slot.
      key: as of `roll_out`.
    """
    enters = source >= 0

    def chosen(old: jax.Array, new: jax.Array) -> jax.Array:
        new = new[jnp.maximum(source, 0)]
        return jnp.where(enters.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
    after = jax.tree.map(chosen, slots, ready)
    chooser = dataclasses.replace(after.rules.chooser, keys=keys)
    return dataclasses.replace(after, rules=dataclasses.replace(after.rules, chooser=chooser))
