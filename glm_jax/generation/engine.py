"""The decoding engine: one prefill, one loop, one place where the mesh is set. All decoding calls
it: blanks, continuations, beams, candidates, the samples that training prints.

    slots = engine.start(prompts, ..)            prefills prompts into new slots
    slots = engine.run(slots)                    until all rows have ended, or for some steps
    slots = engine.resume(slots, prompts, kept)  next prompts, on what the caches hold of them
    slots = engine.insert(slots, [2], others)    a row joins, between any two steps
    slots = engine.release(slots, [0])           a row leaves
    answers = engine.answers(slots, prompts)     what each row has so far

The answers of a row do not depend on the other rows of its batch.
"""

import dataclasses
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from glm_jax.adapters.prefix import with_plain_prefix
from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.generation import programs
from glm_jax.generation.asked import arrays_of, room_for
from glm_jax.generation.bans import AnyArray
from glm_jax.generation.cache import CHUNK, bucket
from glm_jax.generation.programs import Found
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.slots import Room, Slots, fill_up, split_answers, stack
from glm_jax.generation.tiles import MOST_ROWS, tiled
from glm_jax.models.trees import Params, unstack_layers
from glm_jax.sharding.mesh import on_host


class Engine:
    """A model to decode with.

    Attributes:
      config: of the model.
      params: its parameters, layers listed unless shared.
      plain: config and parameters with which prompts are read, a trained prefix taken from its
        encoder.
    """

    def __init__(
        self, config: ModelConfig, params: Params, tiles: bool = True, shared: bool = False
    ):
        """Allocates nothing but a trained prefix, which is taken from its encoder once, and stacked
        layers once more as listed ones unless `shared`.

        Args:
          config: of the model.
          params: stacked or listed.
          tiles: on a CPU, make a tiled copy of the matrices when it is first needed; with it a few
            rows are decoded faster (`glm_jax.generation.tiles`).
          shared: compute with the arrays of the parameters as they are; the programs take the
            layers from stacked ones. Listed layers are a second copy, and a step is faster.
        """
        self.config = config.resolved().with_compute(scan_layers=False)
        # A dict of its own: the caller may change the one given.
        self.params = jax.tree.map(lambda leaf: leaf, params if shared else unstack_layers(params))
        self.plain = with_plain_prefix(self.config, self.params, self.config.compute.dtype)
        self._tiles = tiles
        self._tiled: tuple[ResolvedModel, Params] | None = None

    def start(
        self, prompts: Sequence[Prompt], room: Room | None = None, least: int | None = None
    ) -> Slots:
        """Prefills prompts into new slots, in their order.

        A causal model prefills all but the last token of a text, which `run` feeds first. In a text
        with blanks all tokens attend to each other.

        Args:
          prompts: one at least; already checked (`glm_jax.generation.prompts`).
          room: sizes of the slots; None: what these prompts need.
          least: as of `glm_jax.generation.slots.stack`; there may be more slots than prompts.
        """
        fills, rows = self.config.fills_blanks, [prompt.ids for prompt in prompts]
        longest = max(map(len, rows))
        room = room or room_for(self.config, prompts)
        tokens, length = stack(rows, bucket(longest) if fills else room.size, least)
        config, params = self.plain
        return programs.start(
            params,
            tokens,
            length,
            arrays_of(self.config, prompts, room, len(tokens)),
            config=config,
            room=room,
            width=tokens.shape[1] if fills else min(bucket(longest - 1), CHUNK),
        )

    def resume(
        self, slots: Slots, prompts: Sequence[Prompt], kept: Sequence[int], room: Room
    ) -> Slots:
        """New prompts for rows whose first tokens are in the caches; only the rest is prefilled.

            cached x0 x1 x2 a b     prompt x0 x1 x2 y0 y1, kept 3     runs y0; `run` feeds y1 first

        The answers are those of `start`, to the rounding of sums in another order. Some kept tokens
        are run again where a whole chunk would not end within the caches.

        Args:
          slots: of a causal model, in any state; donated.
          prompts: whole, one for each of the first rows; already checked.
          kept: for each prompt, how many of its first tokens its row's caches hold.
          room: sizes of the new slots; `room.size` must be no less than that of the caches, which
            grow.

        Raises:
          ValueError: a model that fills blanks: all tokens of its prompts attend to each other.
        """
        if self.config.fills_blanks:
            raise ValueError("caches of a model that fills blanks hold for one prompt alone")
        rows, known = [prompt.ids for prompt in prompts], slots.caches[0].keys.shape[2]
        tokens, length = stack(rows, room.size, len(slots.length))
        kept = [min(count, len(row) - 1) for count, row in zip(kept, rows, strict=True)]
        longest = max(len(row) - 1 - count for count, row in zip(kept, rows, strict=True))
        width = min(bucket(longest), CHUNK)
        last = room.size - -(-longest // width) * width
        config, params = self.plain
        return programs.resume(
            params,
            slots.caches if known == room.size else programs.grow(slots.caches, room.size),
            tokens,
            length,
            fill_up([min(count, last) for count in kept], len(tokens)),
            arrays_of(self.config, prompts, room, len(tokens)),
            config=config,
            width=width,
            answers=room.answers,
        )

    def run(self, slots: Slots, steps: int | None = None) -> Slots:
        """Decodes on the device until no row runs, or for `steps` steps. `slots` is donated."""
        config, params = self.for_rows(len(slots.length))
        most = np.int32(np.iinfo(np.int32).max if steps is None else steps)
        return programs.run(params, slots, most, config=config)

    def search(self, slots: Slots, beams: int, length_penalty: float) -> Found:
        """Searches for the best answers to the present blank of each row; the slots stay unchanged.

        Args:
          slots: of prompts whose `how` is a `BeamSearch`.
          beams: K, the number of beams.
          length_penalty: see `BeamSearch`.
        """
        config, params = self.for_rows(len(slots.length) * beams)
        return programs.search(
            params, slots, np.float32(length_penalty), config=config, beams=beams
        )

    def accept(
        self,
        slots: Slots,
        ids: Int[AnyArray, "S A"],
        counts: Int[AnyArray, " S"],
        parents: Sequence[int] | None = None,
    ) -> Slots:
        """Feeds an answer to the present blank of each running row, and goes on to the next blank.

        The last id of an answer of the longest length is not fed, as in `run`.

        Args:
          slots: donated unless there are parents.
          ids: the answers, without end ids.
          counts: number of ids of each answer.
          parents: for each new slot, the slot whose row it continues; None: its own.
        """
        if parents is not None:
            slots = programs.take(slots, np.array(parents, np.int32))
        config, params = self.plain
        return programs.accept(params, slots, ids, counts, config=config)

    def insert(self, slots: Slots, at: Sequence[int], rows: Slots) -> Slots:
        """Puts the first rows of other slots into some of these; `slots` is donated.

        Args:
          slots: the batch that the rows join.
          at: indices of slots; rows in them are given up.
          rows: from `start`, with the same `Room`.

        Raises:
          ValueError: the compiled program of `slots` has no code for an option of `rows` (sampling,
            bans, a penalty) or has code for more, or `rows` have another `Room`.
        """
        if operator.ne(jax.tree.structure(slots), jax.tree.structure(rows)):
            raise ValueError("rows that join slots must be decoded by the same compiled program")
        return programs.insert(slots, np.array(at, np.int32), rows)

    def release(self, slots: Slots, at: Sequence[int]) -> Slots:
        """Frees the slots `at`; the rows in them are given up."""
        given_up = np.zeros(len(slots.num_answers), np.bool_)
        given_up[list(at)] = True
        number = programs.without(slots.num_answers, given_up)
        return dataclasses.replace(slots, num_answers=number)

    def free(self, like: Slots, number: int) -> Slots:
        """`number` free slots with the `Room` and the compiled program of `like`."""
        whole = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], number, axis=0), like)
        return self.release(whole, range(number))

    def chosen(self, slots: Slots) -> list[list[int]]:
        """All ids chosen by each row so far, end ids included."""
        ids, counts = on_host(slots.chosen), on_host(slots.count)
        return [row[:n].tolist() for row, n in zip(ids, counts, strict=True)]

    def answers(self, slots: Slots, prompts: Sequence[Prompt]) -> list[list[list[int]]]:
        """The answers of the rows of `prompts`: one per blank, or one continuation; no end ids.

        A blank that was not reached has an empty answer.
        """
        return [
            split_answers(
                ids,
                len(prompt.blanks) if slots.fills else 1,
                prompt.limits.end_ids,
                prompt.limits.max_new_tokens,
            )
            for ids, prompt in zip(self.chosen(slots), prompts, strict=False)
        ]

    def for_rows(self, number: int) -> tuple[ResolvedModel, Params]:
        """Config and parameters for steps of `number` rows: tiled if few."""
        if number <= MOST_ROWS and self._tiles:
            self._tiled, self._tiles = tiled(*self.plain), False
        if number <= MOST_ROWS and self._tiled is not None:
            return self._tiled
        return self.plain
