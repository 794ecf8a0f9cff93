"""Filling the blanks of texts, left to right, with a cache of keys and values (GLM, section 2.1).

Part A, blanks and all, runs once. Then each blank in turn grows a span behind it, as in training:

    part A   x0 [M] x2 [M] x4 | sop  a   b  | sop  c           fill [M] at 1 with a b, at 3 with c
    positions        0 1 2 3 4 |  1   1   1  |  3   3
    block positions  0 0 0 0 0 |  1   2   3  |  1   2

A span ends with an end id, which is not fed; later blanks see the answers before them. When the
length cuts a span off, its last id is returned but was never fed (as in the published code).

Rows of a batch go their own ways: where an answer ends, its row moves on to its next blank at once.

    step              0     1     2     3     4
    row 0, fed        sop   a     b     sop   c
           chosen     a     b     END   c     END     answers  a b | c
    row 1, fed        sop   sop   d     e             (then it is done)
           chosen     END   d     e     END           answers  - | d e
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.checks import whole_number
from glm_jax.config.model import ModelConfig
from glm_jax.generation.cache import LayerCache, bucket
from glm_jax.generation.decoding import check_new_tokens, feed, fetch, ids_seen, stack
from glm_jax.generation.given import check_special_ids
from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.prompts import blanks_of, check_blanks, prefill_blanks
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params


def fill_rows(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    marks: Marks,
    limits: Limits,
    sampling: Sampling,
    tiles: Callable[[], Tiles | None] = no_tiles,
) -> list[list[list[int]]]:
    """Fills every blank of every row.

    Args:
      config, params: the model, its layers listed.
      rows: B texts of ids with at least one mask each.
      marks, limits: which ids are blanks, begin a span and end it; how long answers are.
      sampling: how ids are chosen.
      tiles: gives those of the same parameters (`make_tiles`), for speed on CPU; called once it is
        known that the input is good.

    Returns:
      For each row one answer per mask, in the order of the masks.

    Raises:
      UserError: a row without a mask, an id outside the vocabulary, or positions outside the
        tables.
    """
    mask_ids, start_id = marks.mask_ids, marks.start_id
    end_ids, max_new_tokens = limits.end_ids, limits.max_new_tokens
    needed = check_blanks(config, rows, mask_ids, max_new_tokens)
    check_special_ids(config, mask_ids=mask_ids, start_id=start_id, end_ids=end_ids)
    check_new_tokens(max_new_tokens, sampling.min_new_tokens)
    most = limits.max_total_tokens
    if most is not None:
        whole_number("max_total_tokens", most, least=1)
    tokens, length = stack(rows, bucket(max(map(len, rows))))
    batch_size, size = len(tokens), bucket(needed)
    seen = ids_seen(rows, batch_size, config) if sampling.repetition_penalty != 1.0 else None
    caches, length, seen = prefill_blanks(params, tokens, length, seen, config=config, size=size)
    blanks = blanks_of(tokens, rows, mask_ids)
    state = _fill(
        params,
        tiles(),
        _Filling.create(caches, length, blanks, start_id, seen),
        blanks,
        np.int32(start_id),
        np.array(end_ids, np.int32),
        np.int32(max_new_tokens),
        np.int32(needed if most is None else most),
        Chooser.create(sampling, row_keys(sampling.seed, rows, batch_size)),
        config=config,
    )
    chosen = fetch(state.chosen, state.count)
    numbers = blanks.sum(axis=1).tolist()
    return [
        split_answers(ids, number, end_ids, max_new_tokens)
        for ids, number in zip(chosen, numbers[: len(rows)], strict=False)
    ]


def split_answers(
    ids: Sequence[int], number: int, end_ids: Sequence[int], max_new_tokens: int
) -> list[list[int]]:
    """Cuts what a row has chosen, end ids and all, into the answers of its blanks.

        a b END c d e, at most 3 each    ->    [a b] [c d e]

    Args:
      number: of blanks; those without an answer get an empty one.
    """
    answers: list[list[int]] = [[]]
    for id_ in ids:
        if id_ in end_ids:
            answers.append([])
            continue
        answers[-1].append(id_)
        if len(answers[-1]) == max_new_tokens:
            answers.append([])
    return (answers + [[]] * number)[:number]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Filling:
    """Where the rows of a batch stand between two steps.

    Attributes:
      caches: one a layer.
      length: [B] int32, places of each row in the caches.
      token: [B] int32, the next to be fed.
      blank: [B] int32, the position of the blank that is being filled; T where none is left.
      index: [B] int32, how many blanks of the row are behind it.
      inside: [B] int32, ids chosen for this blank.
      chosen: [B, S] int32, ids chosen for all blanks, end ids included.
      count: [B] int32, how many of them count.
      seen: [B, V] bool, ids that were there before; None where nothing asks.
    """

    caches: list[LayerCache]
    length: jax.Array
    token: jax.Array
    blank: jax.Array
    index: jax.Array
    inside: jax.Array
    chosen: jax.Array
    count: jax.Array
    seen: jax.Array | None

    @classmethod
    def create(
        cls,
        caches: list[LayerCache],
        length: jax.Array,
        blanks: np.ndarray,
        start_id: int,
        seen: jax.Array | None,
    ) -> "_Filling":
        """Rows at their first blanks; blanks [B, T] bool."""
        zero: Any = np.zeros(len(blanks), np.int32)
        first: Any = np.where(blanks.any(axis=1), blanks.argmax(axis=1), blanks.shape[1])
        chosen: Any = np.zeros((len(blanks), caches[0].keys.shape[2]), np.int32)
        token: Any = np.full_like(zero, start_id)
        return cls(caches, length, token, first.astype(np.int32), zero, zero, chosen, zero, seen)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def _fill(
    params: Params,
    tiles: Tiles | None,
    state: _Filling,
    blanks: jax.Array,
    start_id: jax.Array,
    end_ids: jax.Array,
    max_new_tokens: jax.Array,
    max_total_tokens: jax.Array,
    chooser: Chooser,
    *,
    config: ModelConfig,
) -> _Filling:
    """Fills all blanks [B, T] of all rows without leaving the device."""
    model = bind_tiles(config, params, tiles, len(blanks))
    places = jnp.arange(blanks.shape[1])

    def running(state: _Filling) -> jax.Array:
        return (state.blank < len(places)) & (state.count < max_total_tokens)

    def step(state: _Filling) -> _Filling:
        runs = running(state)
        position = jnp.where(runs, state.blank, 0)
        scores, caches = feed(
            model, state.caches, state.length, state.token, position, state.inside + 1
        )
        token = _choose(chooser, scores, state, end_ids)
        seen = state.seen
        if seen is not None:
            seen = seen.at[jnp.arange(len(token)), token].set(True)
        inside = state.inside + 1
        ended = jnp.any(token[:, None] == end_ids, axis=-1) | (inside == max_new_tokens)
        behind = blanks & (places > state.blank[:, None])
        following = jnp.where(behind.any(axis=1), behind.argmax(axis=1), len(places))
        return _Filling(
            caches,
            # A row that has ended writes its garbage behind its length, where nothing sees it.
            state.length + runs,
            jnp.where(ended, start_id, token),
            jnp.where(runs & ended, following, state.blank).astype(jnp.int32),
            state.index + (runs & ended),
            jnp.where(ended, 0, inside),
            state.chosen.at[jnp.arange(len(token)), state.count].set(token, mode="drop"),
            state.count + runs,
            seen,
        )

    return jax.lax.while_loop(lambda state: jnp.any(running(state)), step, state)


def _choose(chooser: Chooser, scores: jax.Array, state: _Filling, end_ids: jax.Array) -> jax.Array:
    """The next id of each row, [B] int32; bans know the blank's own answer only."""
    answers = state.chosen
    if chooser.bans.ngram:
        begin = state.count - state.inside
        answers = jax.vmap(lambda ids, begin: jnp.roll(ids, -begin))(answers, begin)
    scores = chooser.bans.apply(scores, answers, state.inside, end_ids)
    if chooser.draws:
        keys = jax.vmap(jax.random.fold_in)(chooser.keys, state.index)
        chooser = dataclasses.replace(chooser, keys=keys)
    return chooser.choose(scores, state.inside, state.seen)
