"""The decoding engine: one prefill, one loop, one place where the mesh is set. Everything that
decodes is a caller: blanks, texts, beams, candidates, the samples of a training.

    slots = engine.start(prompts, ..)            reads prompts into new slots
    slots = engine.run(slots)                    until all have ended, or so many steps
    slots = engine.insert(slots, [2], others)    a row joins, between any two steps
    slots = engine.release(slots, [0])           a row leaves
    answers = engine.answers(slots, prompts)     what each row has so far

What a row gets does not depend on the rows beside it.
"""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.generation.bans import host_array
from glm_jax.generation.beam import Beams
from glm_jax.generation.cache import (
    LayerCache,
    bucket,
    empty_cache,
    power_of_two,
    with_length,
)
from glm_jax.generation.options import BeamSearch
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.slots import (
    Rules,
    Slots,
    feed_span,
    fill_up,
    ids_seen,
    split_answers,
    stack,
)
from glm_jax.generation.tiles import MOST_ROWS, tiled
from glm_jax.models.params import bind
from glm_jax.models.trees import Params, unstack_layers
from glm_jax.sharding.mesh import with_mesh_of_params

# Slots of a text that are read at once: memory stays bounded and compiled shapes few.
CHUNK = 512

State = TypeVar("State", Slots, Beams)


class Room(NamedTuple):
    """Sizes of slots; rows can share slots where these are equal.

    Attributes:
      size: slots of a row in the caches.
      answers: ids of all answers of a row.
      blanks: answers of a row.
      ends: end ids of a row.
    """

    size: int
    answers: int
    blanks: int = 1
    ends: int = 1


class Found(NamedTuple):
    """What a search found for the present answer of each of S slots, K beams, best first.

    Attributes:
      ids: [S, K, A] int32.
      counts: [S, K] int32, how many of them count.
      worth: [S, K] float32, see `BeamSearch.length_penalty`; -inf: nothing.
    """

    ids: jax.Array
    counts: jax.Array
    worth: jax.Array


class Engine:
    """A model to decode with.

    Attributes:
      config: of the model.
      params: its parameters, layers listed.
    """

    def __init__(self, config: ModelConfig, params: Params, tiles: bool = True):
        """Takes a model, and allocates nothing.

        Args:
          config: of the model.
          params: stacked or listed.
          tiles: on a CPU, make a copy of the matrices that few rows are decoded faster with, when
            it is first needed (`glm_jax.generation.tiles`).
        """
        self.config = config.resolved().with_compute(scan_layers=False)
        # A dict of its own: the caller may change the one given.
        self.params = jax.tree.map(lambda leaf: leaf, unstack_layers(params))
        self._tiles = tiles
        self._tiled: tuple[ResolvedModel, Params] | None = None

    def start(
        self, prompts: Sequence[Prompt], room: Room | None = None, least: int | None = None
    ) -> Slots:
        """Reads prompts into slots of their own, in their order.

        A text is read up to its last token, which is fed first. Of a text with blanks all tokens
        see each other.

        Args:
          prompts: one at least; already checked (`glm_jax.generation.prompts`).
          room: None: what these prompts need.
          least: as of `glm_jax.generation.slots.stack`; there may be more slots than prompts.
        """
        fills, rows = self.config.fills_blanks, [prompt.ids for prompt in prompts]
        longest = max(map(len, rows))
        room = room or self._room(prompts)
        tokens, length = stack(rows, bucket(longest) if fills else room.size, least)
        return _start(
            self.params,
            tokens,
            length,
            *self._answers(prompts, room, len(tokens)),
            config=self.config,
            room=room,
            width=tokens.shape[1] if fills else min(bucket(longest - 1), CHUNK),
        )

    def _room(self, prompts: Sequence[Prompt]) -> Room:
        """What prompts need. Searches feed the best answer in one piece, behind which is room."""
        searches = any(isinstance(prompt.how, BeamSearch) for prompt in prompts)
        longest = bucket(max(prompt.limits.max_new_tokens for prompt in prompts))
        ends = max(len(prompt.limits.end_ids) for prompt in prompts)
        if not self.config.fills_blanks:
            needed = max(len(one.ids) + one.limits.max_new_tokens for one in prompts)
            return Room(bucket(needed), longest, 1, ends)
        blanks = power_of_two(max(len(prompt.blanks) for prompt in prompts))
        needed = max(len(one.ids) + len(one.blanks) * one.limits.max_new_tokens for one in prompts)
        if searches:
            return Room(bucket(needed + longest), longest, blanks, ends)
        return Room(bucket(needed), bucket(needed), blanks, ends)

    def _answers(
        self, prompts: Sequence[Prompt], room: Room, batch_size: int
    ) -> tuple[jax.Array, jax.Array, jax.Array | None, Rules]:
        """Blanks, how many answers, ids seen and rules of prompts; others of the batch are free."""
        rows = [prompt.ids for prompt in prompts]
        blanks = np.zeros((batch_size, room.blanks), np.int32)
        ends = np.full((batch_size, room.ends), -1, np.int32)
        for index, prompt in enumerate(prompts):
            blanks[index, : len(prompt.blanks)] = prompt.blanks
            ends[index, : len(prompt.limits.end_ids)] = prompt.limits.end_ids
        fills = self.config.fills_blanks
        numbers = [len(prompt.blanks) if fills else 1 for prompt in prompts]
        searches = [isinstance(prompt.how, BeamSearch) for prompt in prompts]
        hows = [
            Sampling(min_new_tokens=how.min_new_tokens, no_repeat_ngram=how.no_repeat_ngram)
            if isinstance(how, BeamSearch)
            else how
            for how in (prompt.how for prompt in prompts)
        ]
        others = batch_size - len(prompts)
        # A ban of ends costs a search nothing, and one program serves both.
        chooser = Chooser.create(
            [*hows, *[Sampling()] * others],
            row_keys([how.seed for how in hows], rows, batch_size),
            holds=any(searches),
        )
        limits = [prompt.limits for prompt in prompts]
        rules = Rules(
            fill_up([prompt.start_id for prompt in prompts], batch_size),
            host_array(ends),
            fill_up([one.max_new_tokens for one in limits], batch_size),
            fill_up(
                [
                    number * one.max_new_tokens
                    if one.max_total_tokens is None
                    else one.max_total_tokens
                    for number, one in zip(numbers, limits, strict=True)
                ],
                batch_size,
            ),
            chooser,
        )
        seen = ids_seen(rows, batch_size, self.config.vocab_size) if chooser.penalises else None
        return host_array(blanks), fill_up(numbers, batch_size), seen, rules

    def run(self, slots: Slots, steps: int | None = None) -> Slots:
        """Decodes on the device until no row runs, or for so many steps. `slots` is donated."""
        config, params = self._for_rows(len(slots.length))
        most = np.int32(np.iinfo(np.int32).max if steps is None else steps)
        return _run(params, slots, most, config=config)

    def search(self, slots: Slots, beams: int, length_penalty: float) -> Found:
        """Looks for the best answers to the present blank of each row; the slots stay as they are.

        Args:
          slots: of prompts whose `how` is a `BeamSearch`.
          beams: K, that are followed at once.
          length_penalty: see `BeamSearch`.
        """
        config, params = self._for_rows(len(slots.length) * beams)
        return _search(params, slots, np.float32(length_penalty), config=config, beams=beams)

    def accept(
        self,
        slots: Slots,
        ids: jax.Array,
        counts: jax.Array,
        parents: Sequence[int] | None = None,
    ) -> Slots:
        """Takes an answer to the present blank of each running row, and goes to the next one.

        What the length cuts off is not fed: as without a search, the last id of such an answer.

        Args:
          slots: donated unless there are parents.
          ids, counts: [S, A] and [S], without an end id.
          parents: for each new slot that from which it goes on; None: each from itself.
        """
        if parents is not None:
            slots = _take(slots, np.array(parents, np.int32))
        return _accept(self.params, slots, ids, counts, config=self.config)

    def insert(self, slots: Slots, at: Sequence[int], rows: Slots) -> Slots:
        """Puts the first rows of other slots into some of these; `slots` is donated.

        Args:
          at: indices of slots, which were free or are given up.
          rows: from `start`, with the same `Room`.

        Raises:
          ValueError: rows were asked for what the program of these slots has left out (draws,
            bans, a penalty), or have another `Room`.
        """
        if operator.ne(jax.tree.structure(slots), jax.tree.structure(rows)):
            raise ValueError("rows that join slots must be chosen by the same program")
        return _insert(slots, np.array(at, np.int32), rows)

    def release(self, slots: Slots, at: Sequence[int]) -> Slots:
        """Frees some slots; the rows in them are given up."""
        number = jnp.asarray(slots.num_answers).at[np.array(at, np.int32)].set(0)
        return dataclasses.replace(slots, num_answers=number)

    def free(self, like: Slots, number: int) -> Slots:
        """So many free slots, of the `Room` and the program of others."""
        whole = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], number, axis=0), like)
        return self.release(whole, range(number))

    def chosen(self, slots: Slots) -> list[list[int]]:
        """All ids chosen by each row so far, end ids included."""
        ids, counts = on_host(slots.chosen), on_host(slots.count)
        return [row[:n].tolist() for row, n in zip(ids, counts, strict=True)]

    def answers(self, slots: Slots, prompts: Sequence[Prompt]) -> list[list[list[int]]]:
        """The answers of the first rows, one per blank, or the one of a text; without end ids.

        What was not reached is empty.
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

    def _for_rows(self, number: int) -> tuple[ResolvedModel, Params]:
        """Config and parameters for steps of so many rows."""
        if number <= MOST_ROWS and self._tiles:
            self._tiled, self._tiles = tiled(self.config, self.params), False
        if number <= MOST_ROWS and self._tiled is not None:
            return self._tiled
        return self.config, self.params


def on_host(array: jax.Array) -> np.ndarray:
    """An array's values; those that lie on devices of several processes, all must ask for."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def prefill(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    *,
    config: ResolvedModel,
    size: int,
    width: int,
) -> list[LayerCache]:
    """Reads the beginnings of rows into caches; tokens that do not count are read and not seen.

    For use inside jit, with the mesh of the parameters set.

    Args:
      tokens: [B, T]; T is a multiple of `width`.
      length: [B] int32, how many tokens count. If the model fills blanks, all see each other; else
        each sees those before it.
      size: slots of the caches.
      width: tokens that are read at once; all of them if they see each other.
    """
    model = bind(config, params)
    nothing = jnp.zeros((len(tokens), width), jnp.int32)

    def read(index: jax.Array | int, caches: list[LayerCache]) -> list[LayerCache]:
        start = index * width
        slot = start + jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), nothing.shape)
        inside = slot < length[:, None]
        end = length[:, None] if config.fills_blanks else slot + 1
        _, caches = model.extend(
            jax.lax.dynamic_slice_in_dim(tokens, start, width, axis=1),
            jnp.where(inside, slot, 0),
            nothing,
            nothing,
            jnp.where(inside, end, 0),
            with_length(caches, jnp.full_like(length, start)),
        )
        return caches

    caches = empty_cache(config, len(tokens), size)
    if tokens.shape[1] == width:
        return with_length(read(0, caches), length)
    pieces = (jnp.max(length) + width - 1) // width
    return with_length(jax.lax.fori_loop(0, pieces, read, caches), length)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "room", "width"))
def _start(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    blanks: jax.Array,
    num_answers: jax.Array,
    seen: jax.Array | None,
    rules: Rules,
    *,
    config: ResolvedModel,
    room: Room,
    width: int,
) -> Slots:
    """Everything comes back on the devices of the parameters, which all that follows is for."""
    if config.fills_blanks:
        read, token = length, rules.start_id
    else:
        read = jnp.maximum(length - 1, 0)
        token = jnp.take_along_axis(tokens, read[:, None], axis=1)[:, 0]
    zero = jnp.zeros_like(length)
    return Slots(
        prefill(params, tokens, read, config=config, size=room.size, width=width),
        read,
        token,
        blanks,
        num_answers,
        zero,
        zero,
        jnp.zeros((len(tokens), room.answers), jnp.int32),
        zero,
        seen,
        rules,
        config.fills_blanks,
    )


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config", donate_argnames="slots")
def _run(params: Params, slots: Slots, most: jax.Array, *, config: ResolvedModel) -> Slots:
    return _loop(params, slots, most, config)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "beams"))
def _search(
    params: Params, slots: Slots, length_penalty: jax.Array, *, config: ResolvedModel, beams: int
) -> Found:
    state = Beams.begin(slots, beams, length_penalty)
    state = _loop(params, state, jnp.max(slots.rules.max_new_tokens), config)
    return Found(state.finished, state.count, state.best)


def _loop(params: Params, state: State, most: jax.Array, config: ResolvedModel) -> State:
    """Steps until no row runs, or so many times; for use inside jit."""
    model = bind(config, params)

    def step(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
        done, state = carry
        return done + 1, state.advance(*state.feed(model))

    def more(carry: tuple[jax.Array, State]) -> jax.Array:
        done, state = carry
        return (done < most) & jnp.any(state.running)

    return jax.lax.while_loop(more, step, (jnp.int32(0), state))[1]


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config", donate_argnames="slots")
def _accept(
    params: Params, slots: Slots, ids: jax.Array, counts: jax.Array, *, config: ResolvedModel
) -> Slots:
    runs, rules = slots.running, slots.rules
    start = jnp.broadcast_to(rules.start_id[:, None], (len(ids), 1))
    fed = jnp.where(runs, jnp.minimum(counts, rules.max_new_tokens - 1) + 1, 0)
    inputs = jnp.concatenate([start, ids[:, :-1]], axis=1)
    caches, length = feed_span(bind(config, params), slots, inputs, fed)
    return dataclasses.replace(slots, caches=caches, length=length, index=slots.index + runs)


@jax.jit
def _take(slots: Slots, parents: jax.Array) -> Slots:
    return jax.tree.map(lambda leaf: leaf[parents], slots)


@functools.partial(jax.jit, donate_argnames="slots")
def _insert(slots: Slots, at: jax.Array, rows: Slots) -> Slots:
    return jax.tree.map(lambda whole, part: whole.at[at].set(part[: len(at)]), slots, rows)
