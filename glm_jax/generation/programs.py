"""The compiled programs of the decoding engine: pure functions of parameters and slots.

They are made once for each config and each set of shapes, and shared by all engines of a process.
"""

import dataclasses
import functools
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from glm_jax.config.model import ResolvedModel
from glm_jax.generation.beam import Beams
from glm_jax.generation.cache import LayerCache
from glm_jax.generation.prefill import prefill
from glm_jax.generation.slots import Asked, Room, Slots, feed_span
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params

State = TypeVar("State", Slots, Beams)


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


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "room", "width"))
def start(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    asked: Asked,
    *,
    config: ResolvedModel,
    room: Room,
    width: int,
) -> Slots:
    """Prefills rows. All arrays of the result are on the devices of the parameters."""
    if config.fills_blanks:
        read, token = length, jnp.asarray(asked.rules.start_id)
    else:
        read, token = _all_but_last(tokens, length)
    caches = prefill(bind(config, params), tokens, read, config=config, size=room.size, width=width)
    return before_the_first_step(caches, read, token, asked, room.answers, config.fills_blanks)


@with_mesh_of_params
@functools.partial(
    jax.jit, static_argnames=("config", "width", "answers"), donate_argnames="caches"
)
def resume(
    params: Params,
    caches: list[LayerCache],
    tokens: jax.Array,
    length: jax.Array,
    kept: jax.Array,
    asked: Asked,
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
    return before_the_first_step(caches, read, token, asked, answers, False)


@functools.partial(jax.jit, static_argnames="size")
def grow(caches: list[LayerCache], size: int) -> list[LayerCache]:
    """The same caches with `size` slots a row."""

    def grown(whole: jax.Array) -> jax.Array:
        return jnp.pad(whole, ((0, 0), (0, 0), (0, size - whole.shape[2]), (0, 0)))

    return [LayerCache(grown(one.keys), grown(one.values), one.length) for one in caches]


def _all_but_last(tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many tokens of each text are prefilled, and the one that the first step feeds."""
    read = jnp.maximum(length - 1, 0)
    return read, jnp.take_along_axis(tokens, read[:, None], axis=1)[:, 0]


def before_the_first_step(
    caches: list[LayerCache],
    length: jax.Array,
    token: jax.Array,
    asked: Asked,
    answers: int,
    fills: bool,
) -> Slots:
    """Slots of rows that have chosen nothing yet."""
    blanks, number = jnp.asarray(asked.blanks), jnp.asarray(asked.num_answers)
    seen = None if asked.seen is None else jnp.asarray(asked.seen)
    zero, chosen = jnp.zeros_like(length), jnp.zeros((len(token), answers), jnp.int32)
    return Slots(
        caches, length, token, blanks, number, zero, zero, chosen, zero, seen, asked.rules, fills
    )


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config", donate_argnames="slots")
def run(params: Params, slots: Slots, most: jax.Array, *, config: ResolvedModel) -> Slots:
    return _loop(params, slots, most, config)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "beams"))
def search(
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
def accept(
    params: Params, slots: Slots, ids: jax.Array, counts: jax.Array, *, config: ResolvedModel
) -> Slots:
    runs, rules = slots.running, slots.rules
    start = jnp.broadcast_to(rules.start_id[:, None], (len(ids), 1))
    fed = jnp.where(runs, jnp.minimum(counts, rules.max_new_tokens - 1) + 1, 0)
    inputs = jnp.concatenate([start, ids[:, :-1]], axis=1)
    caches, length = feed_span(bind(config, params), slots, inputs, fed)
    return dataclasses.replace(slots, caches=caches, length=length, index=slots.index + runs)


@jax.jit
def take(slots: Slots, parents: jax.Array) -> Slots:
    return jax.tree.map(lambda leaf: leaf[parents], slots)


@jax.jit
def without(num_answers: jax.Array, given_up: jax.Array) -> jax.Array:
    """`Slots.num_answers` with no answers for the slots that are marked in [S] bool."""
    return jnp.where(given_up, 0, num_answers)


@functools.partial(jax.jit, donate_argnames="slots")
def insert(slots: Slots, at: jax.Array, rows: Slots) -> Slots:
    return jax.tree.map(lambda whole, part: whole.at[at].set(part[: len(at)]), slots, rows)
