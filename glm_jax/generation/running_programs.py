"""The compiled programs of a running batch: pure functions of parameters and slots.

    read       one chunk of a prompt, into the caches of a row of its own
    enter      the row becomes a slot of the batch
    logits     each slot is fed its token
    advance    each slot chooses its next id

`logits` and `advance` are two programs, so that the logits of a row are the same bits whatever code
for choosing its neighbours ask for.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from glm_jax.config.model import ResolvedModel
from glm_jax.generation.cache import LayerCache, with_length
from glm_jax.generation.prefill import read_chunk
from glm_jax.generation.programs import before_the_first_step, insert
from glm_jax.generation.slots import Asked, Rules, Slots
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params


class Code(NamedTuple):
    """What an `advance` has code for; a row that does not ask for it gets what it gets without.

    Attributes:
      draws, narrows, penalises: as of `glm_jax.generation.sampling.Chooser`.
      bans_ends: as of `glm_jax.generation.bans.Bans`.
    """

    draws: bool = False
    narrows: bool = False
    penalises: bool = False
    bans_ends: bool = False


# The programs that exist: few, so that all can be compiled before any is needed. Top-k and top-p
# have one of their own: they pass over the logits some 25 times.
GREEDY, DRAWS = Code(), Code(draws=True)
LOWERED = Code(draws=True, penalises=True, bans_ends=True)
EVERYTHING = Code(True, True, True, True)


class Scores(NamedTuple):
    """Log-probabilities of ids under the model, in nats: temperature 1, nothing excluded.

    Attributes:
      chosen: [N] float32, of the ids themselves.
      ids: [N, K] int32, the most probable ids, best first.
      values: [N, K] float32, theirs.
    """

    chosen: jax.Array
    ids: jax.Array
    values: jax.Array


class Told(NamedTuple):
    """What a step did to each of S slots.

    Attributes:
      ids: [S] int32, the id chosen.
      answer: [S] int32, the number of the answer it belongs to.
      grew: [S] bool, false where no row runs.
      ends: [S] bool, it is an end id.
      ended: [S] bool, the row has no answer left to decode.
      scores: of the ids; None: not asked for.
    """

    ids: jax.Array
    answer: jax.Array
    grew: jax.Array
    ends: jax.Array
    ended: jax.Array
    scores: Scores | None


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames=("config", "width", "most"), donate_argnames="caches")
def read(
    params: Params,
    caches: list[LayerCache],
    tokens: jax.Array,
    start: jax.Array,
    length: jax.Array,
    *,
    config: ResolvedModel,
    width: int,
    most: int,
) -> tuple[list[LayerCache], Scores | None]:
    """Reads `width` tokens of one row from slot `start` on; all of it if the model fills blanks.

    Args:
      tokens: [1, T], the whole row.
      start, length: [1] int32.
      most: K of the scores of the ids behind these tokens; 0: no scores.
    """
    model = bind(config, params)
    hidden, caches = read_chunk(model, tokens, start, length, caches, width, config.fills_blanks)
    caches = with_length(caches, jnp.minimum(start + width, length))
    if not most:
        return caches, None
    slot = start[:, None] + 1 + jnp.arange(width, dtype=jnp.int32)
    following = jnp.take_along_axis(tokens, slot, axis=1, mode="clip")[0]
    return caches, _scores(model.logits(hidden)[0], following, most)


@jax.jit
def copied(caches: list[LayerCache]) -> list[LayerCache]:
    """Caches of their own, which may be donated."""
    return jax.tree.map(jnp.copy, caches)


@functools.partial(jax.jit, static_argnames=("answers", "fills"), donate_argnames="slots")
def enter(
    slots: Slots,
    at: jax.Array,
    caches: list[LayerCache],
    length: jax.Array,
    token: jax.Array,
    asked: Asked,
    *,
    answers: int,
    fills: bool,
) -> Slots:
    """Puts a row that has been read into slot `at`.

    Args:
      caches: of one row.
      length: [1], how many slots of it are filled.
      token: [1], the one that the first step feeds.
      asked: of one row, by `plain`.
    """
    return insert(slots, at, before_the_first_step(caches, length, token, asked, answers, fills))


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config", donate_argnames="caches")
def logits(
    params: Params, caches: list[LayerCache], slots: Slots, *, config: ResolvedModel
) -> tuple[jax.Array, list[LayerCache]]:
    """Feeds each slot its token: the logits of its next id, and the caches; `slots` has none."""
    return dataclasses.replace(slots, caches=caches).feed(bind(config, params))


@functools.partial(jax.jit, static_argnames=("code", "most"), donate_argnames="slots")
def advance(slots: Slots, logits: jax.Array, *, code: Code, most: int) -> tuple[Slots, Told]:
    """Chooses the next id of each slot; `slots` has no caches.

    Args:
      logits: [S, V].
      code: what the rows ask for.
      most: K of the scores; 0: no scores.
    """
    after = dataclasses.replace(slots, rules=with_code(slots.rules, code)).advance(logits, [])
    ids = jnp.take_along_axis(after.chosen, slots.count[:, None], axis=1, mode="clip")[:, 0]
    told = Told(
        ids,
        slots.index,
        after.count > slots.count,
        jnp.any(ids[:, None] == slots.rules.end_ids, axis=-1),
        ~after.running,
        _scores(logits, ids, most) if most else None,
    )
    return dataclasses.replace(after, rules=slots.rules), told


def plain(asked: Asked) -> Asked:
    """The same without code for any option, so that all rows fit one batch."""
    return asked._replace(rules=with_code(asked.rules, GREEDY))


def with_code(rules: Rules, code: Code) -> Rules:
    """The same rules in a program with this code."""
    chooser = rules.chooser
    bans = dataclasses.replace(chooser.bans, bans_ends=code.bans_ends, most_ngram=0)
    return dataclasses.replace(
        rules,
        chooser=dataclasses.replace(
            chooser,
            bans=bans,
            draws=code.draws,
            narrows=code.narrows,
            penalises=code.penalises,
        ),
    )


def _scores(logits: jax.Array, ids: jax.Array, most: int) -> Scores:
    """Of ids [N] under logits [N, V]."""
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(log_probabilities, ids[:, None], axis=-1)[:, 0]
    values, best = jax.lax.top_k(log_probabilities, min(most, logits.shape[-1]))
    return Scores(chosen, best.astype(jnp.int32), values)
