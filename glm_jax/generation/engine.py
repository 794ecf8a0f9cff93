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
import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from glm_jax.adapters.prefix import with_plain_prefix
from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.generation.bans import AnyArray, host_array
from glm_jax.generation.beam import Beams
from glm_jax.generation.cache import LayerCache, bucket, power_of_two
from glm_jax.generation.options import BeamSearch
from glm_jax.generation.prefill import prefill
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
from glm_jax.sharding.mesh import on_host, with_mesh_of_params

# Tokens of a text in one call of a prefill: this bounds memory and the number of compiled shapes.
CHUNK = 512

State = TypeVar("State", Slots, Beams)


class Room(NamedTuple):
    """Sizes of the arrays of `Slots`; rows of equal sizes can join one batch.

    Attributes:
      size: slots of a row in the caches.
      answers: most ids of all answers of a row.
      blanks: most answers of a row.
      ends: most end ids of a row.
    """

    size: int
    answers: int
    blanks: int = 1
    ends: int = 1


class Found(NamedTuple):
    """The K best answers that a search found for the present blank of each of S slots, best first.

    Attributes:
      ids: [S, K, A] int32.
      counts: [S, K] int32, number of ids of each answer.
      scores: [S, K] float32, see `BeamSearch.length_penalty`; -inf: no answer.
    """

    ids: jax.Array
    counts: jax.Array
    scores: jax.Array


class Engine:
    """A model to decode with.

    Attributes:
      config: of the model.
      params: its parameters, layers listed.
    """

    def __init__(self, config: ModelConfig, params: Params, tiles: bool = True):
        """Allocates nothing but a trained prefix, which is taken from its encoder once.

        Args:
          config: of the model.
          params: stacked or listed.
          tiles: on a CPU, make a tiled copy of the matrices when it is first needed; with it a few
            rows are decoded faster (`glm_jax.generation.tiles`).
        """
        self.config = config.resolved().with_compute(scan_layers=False)
        # A dict of its own: the caller may change the one given.
        self.params = jax.tree.map(lambda leaf: leaf, unstack_layers(params))
        self._plain = with_plain_prefix(self.config, self.params, self.config.compute.dtype)
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
        room = room or self._room(prompts)
        tokens, length = stack(rows, bucket(longest) if fills else room.size, least)
        config, params = self._plain
        return _start(
            params,
            tokens,
            length,
            *self._answers(prompts, room, len(tokens)),
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
        config, params = self._plain
        return _resume(
            params,
            slots.caches if known == room.size else _grow(slots.caches, room.size),
            tokens,
            length,
            fill_up([min(count, last) for count in kept], len(tokens)),
            *self._answers(prompts, room, len(tokens)),
            config=config,
            width=width,
            answers=room.answers,
        )

    def _room(self, prompts: Sequence[Prompt]) -> Room:
        """The sizes that prompts need. `accept` writes a whole padded answer, so it needs more."""
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
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Rules]:
        """Blanks, numbers of answers, ids seen and rules of prompts; other slots are free."""
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
        # For a search, code for a shortest length costs nothing, and one program serves all.
        chooser = Chooser.create(
            [*hows, *[Sampling()] * others],
            row_keys([how.seed for how in hows], rows, batch_size),
            bans_ends=any(searches),
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
        """Decodes on the device until no row runs, or for `steps` steps. `slots` is donated."""
        config, params = self._for_rows(len(slots.length))
        most = np.int32(np.iinfo(np.int32).max if steps is None else steps)
        return _run(params, slots, most, config=config)

    def search(self, slots: Slots, beams: int, length_penalty: float) -> Found:
        """Searches for the best answers to the present blank of each row; the slots stay unchanged.

        Args:
          slots: of prompts whose `how` is a `BeamSearch`.
          beams: K, the number of beams.
          length_penalty: see `BeamSearch`.
        """
        config, params = self._for_rows(len(slots.length) * beams)
        return _search(params, slots, np.float32(length_penalty), config=config, beams=beams)

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
            slots = _take(slots, np.array(parents, np.int32))
        config, params = self._plain
        return _accept(params, slots, ids, counts, config=config)

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
        return _insert(slots, np.array(at, np.int32), rows)

    def release(self, slots: Slots, at: Sequence[int]) -> Slots:
        """Frees the slots `at`; the rows in them are given up."""
        number = jnp.asarray(slots.num_answers).at[np.array(at, np.int32)].set(0)
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

    def _for_rows(self, number: int) -> tuple[ResolvedModel, Params]:
        """Config and parameters for steps of `number` rows: tiled if few."""
        if number <= MOST_ROWS and self._tiles:
            self._tiled, self._tiles = tiled(*self._plain), False
        if number <= MOST_ROWS and self._tiled is not None:
            return self._tiled
        return self._plain


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
    """Prefills rows. All arrays of the result are on the devices of the parameters."""
    if config.fills_blanks:
        read, token = length, jnp.asarray(rules.start_id)
    else:
        read, token = _all_but_last(tokens, length)
    caches = prefill(bind(config, params), tokens, read, config=config, size=room.size, width=width)
    asked = (blanks, num_answers, seen, rules)
    return _before_the_first_step(caches, read, token, asked, room.answers, config.fills_blanks)


@with_mesh_of_params
@functools.partial(
    jax.jit, static_argnames=("config", "width", "answers"), donate_argnames="caches"
)
def _resume(
    params: Params,
    caches: list[LayerCache],
    tokens: jax.Array,
    length: jax.Array,
    kept: jax.Array,
    blanks: jax.Array,
    num_answers: jax.Array,
    seen: jax.Array | None,
    rules: Rules,
    *,
    config: ResolvedModel,
    width: int,
    answers: int,
) -> Slots:
    """Prefills what the caches do not hold of rows of a causal model."""
    read, token = _all_but_last(tokens, length)
    caches = prefill(
        bind(config, params),
        tokens,
        read,
        config=config,
        size=tokens.shape[1],
        width=width,
        caches=caches,
        kept=kept,
    )
    asked = (blanks, num_answers, seen, rules)
    return _before_the_first_step(caches, read, token, asked, answers, False)


@functools.partial(jax.jit, static_argnames="size")
def _grow(caches: list[LayerCache], size: int) -> list[LayerCache]:
    """The same caches with `size` slots a row."""

    def grown(whole: jax.Array) -> jax.Array:
        return jnp.pad(whole, ((0, 0), (0, 0), (0, size - whole.shape[2]), (0, 0)))

    return [LayerCache(grown(one.keys), grown(one.values), one.length) for one in caches]


def _all_but_last(tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many tokens of each text are prefilled, and the one that the first step feeds."""
    read = jnp.maximum(length - 1, 0)
    return read, jnp.take_along_axis(tokens, read[:, None], axis=1)[:, 0]


def _before_the_first_step(
    caches: list[LayerCache],
    length: jax.Array,
    token: jax.Array,
    asked: tuple[jax.Array, jax.Array, jax.Array | None, Rules],
    answers: int,
    fills: bool,
) -> Slots:
    """Slots of rows that have chosen nothing yet; `asked` is what `Engine._answers` returns."""
    blanks, num_answers, seen, rules = asked
    zero, chosen = jnp.zeros_like(length), jnp.zeros((len(token), answers), jnp.int32)
    return Slots(
        caches, length, token, blanks, num_answers, zero, zero, chosen, zero, seen, rules, fills
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
    """Steps until no row runs, or `most` times; for use inside jit."""
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
