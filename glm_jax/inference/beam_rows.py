"""Blanks filled, and texts continued, by beam search: what `beam` does on the device, from lists.

    part A [M] .. [M] once  ->  K copies search for the first answer  ->  the best one is fed
    behind part A  ->  K copies search for the second answer, and see the first  ->  ..
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.inference import beam
from glm_jax.inference.bans import Bans
from glm_jax.inference.blank_filling import blanks_of, check_blanks, prefill
from glm_jax.inference.cache import LayerCache, bucket, with_length
from glm_jax.inference.decoding import fill_up, stack
from glm_jax.inference.tiles import Tiles, bind_tiles, no_tiles
from glm_jax.models.params import Params, bind


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """How to search.

    Attributes:
      num_beams: K, answers that are followed at once.
      length_penalty: an answer of n ids is worth its log-probability / n^length_penalty; 0: the
        plain sum, which likes short ones; 1: the mean of its ids.
      min_new_tokens, no_repeat_ngram: as of `Sampling`.
    """

    num_beams: int
    length_penalty: float = 1.0
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0

    def __post_init__(self):
        if self.num_beams < 1:
            raise UserError(f"num_beams must be at least 1; got {self.num_beams}")
        if not np.isfinite(self.length_penalty):
            raise UserError(f"length_penalty must be a finite number; got {self.length_penalty}")
        self.bans()

    def bans(self) -> Bans:
        """What is banned while searching."""
        return Bans.create(self.min_new_tokens, self.no_repeat_ngram)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best answer found.

    Attributes:
      ids: without the end id.
      score: what it is worth (`BeamSearch.length_penalty`).
    """

    ids: list[int]
    score: float


def search_blanks(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    mask_ids: Sequence[int],
    start_id: int,
    end_ids: Sequence[int],
    max_new_tokens: int,
    search: BeamSearch,
    tiles: Callable[[], Tiles | None] = no_tiles,
) -> list[list[Answer]]:
    """Fills every blank of every row from left to right; arguments and errors of `fill_rows`."""
    needed = check_blanks(config, rows, mask_ids, max_new_tokens)
    check_beams(search, config, end_ids)
    room = bucket(max_new_tokens)
    tokens, length = stack(rows, bucket(max(map(len, rows))))
    # There are num_beams rows for each: no need to fill up the batch.
    batch_size = 1 << (len(rows) - 1).bit_length()
    tokens, length = tokens[:batch_size], length[:batch_size]
    caches, length, _ = prefill(
        params, tokens, length, None, config=config, size=bucket(needed + room)
    )
    places = [np.flatnonzero(row).tolist() for row in blanks_of(tokens, rows, mask_ids)]
    laid_out, answers = tiles(), []
    for index in range(max(map(len, places))):
        found = _search_blank(
            params,
            laid_out,
            caches,
            length,
            fill_up([row[index] if index < len(row) else 0 for row in places], batch_size),
            np.array([index < len(row) for row in places]),
            np.int32(start_id),
            np.array(end_ids, np.int32),
            np.int32(max_new_tokens),
            np.float32(search.length_penalty),
            search.bans(),
            config=config,
            beams=search.num_beams,
            size=room,
        )
        caches, length, *answer = found
        answers.append(answer)
    fetched = [tuple(map(np.asarray, answer)) for answer in answers]
    return [
        [_answer(*fetched[index], row) for index in range(len(blanks))]
        for row, blanks in enumerate(places[: len(rows)])
    ]


def check_beams(search: BeamSearch, config: ModelConfig, end_ids: Sequence[int]) -> None:
    """Raises UserError where the vocabulary is too small for so many beams."""
    most = config.vocab_size // (1 + max(1, len(end_ids)))
    if search.num_beams > most:
        raise UserError(
            f"num_beams={search.num_beams} is too much for a vocabulary of {config.vocab_size}; "
            f"at most {most}"
        )


def _answer(ids: np.ndarray, count: np.ndarray, score: np.ndarray, row: int) -> Answer:
    return Answer(ids[row, : count[row]].tolist(), float(score[row]))


@functools.partial(
    jax.jit, static_argnames=("config", "beams", "size"), donate_argnames=("caches",)
)
def _search_blank(
    params: Params,
    tiles: Tiles | None,
    caches: list[LayerCache],
    length: jax.Array,
    blank: jax.Array,
    has: jax.Array,
    start_id: jax.Array,
    end_ids: jax.Array,
    limit: jax.Array,
    length_penalty: jax.Array,
    bans: Bans,
    *,
    config: ModelConfig,
    beams: int,
    size: int,
) -> tuple[list[LayerCache], jax.Array, jax.Array, jax.Array, jax.Array]:
    """Searches one blank of every row that has one, and feeds what it found.

    Returns:
      The caches of B rows and their lengths with the answers behind them, the answers [B, size],
      how many ids of each count, and what they are worth.
    """

    def places(state: beam.Beams) -> tuple[jax.Array, jax.Array]:
        return blank, jnp.full_like(blank, state.step + 1)

    found = beam.search(
        bind_tiles(config, params, tiles, len(blank) * beams),
        beam.begin(caches, length, has, beams, size),
        jnp.full_like(blank, start_id),
        places,
        end_ids,
        limit,
        length_penalty,
        bans,
    )
    answer, count, score = found.finished[:, 0], found.count[:, 0], found.best[:, 0]
    # As without beams: what the length cuts off was never fed.
    fed = jnp.where(has, jnp.minimum(count, limit - 1) + 1, 0)
    start = jnp.full_like(blank, start_id)[:, None]
    inputs = jnp.concatenate([start, answer[:, :-1]], axis=1)
    step = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), inputs.shape)
    inside = step < fed[:, None]
    _, caches = bind(config, params).extend(
        inputs,
        jnp.where(inside, blank[:, None], 0),
        jnp.where(inside, step + 1, 0),
        jnp.zeros_like(inputs),
        jnp.where(inside, length[:, None] + step + 1, 0),
        with_length(caches, length),
    )
    return with_length(caches, length + fed), length + fed, answer, count, score
