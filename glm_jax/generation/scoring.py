"""Texts that are given, and how likely they are: rows whose last places are judged.

    a blank     part A  C x [M] y E | S  a  b        judged: a b END        (cloze)
    from left   part A  C [M]       | S  x  y  a     judged: a b            (choices, perplexity)
    causal              x  y  a                      judged: a b            (ChatGLM2 and later)

The inputs of part B are one step behind what is judged, as in training.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.cache import bucket, power_of_two
from glm_jax.generation.prompts import check_row
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params

# Rows that run at once; their scores are computed one row at a time.
ROWS = 8


@dataclasses.dataclass(frozen=True)
class JudgedRow:
    """A row and what is judged in it; T places.

    Attributes:
      tokens, positions, block_positions: T ids each.
      prefix: places of part A.
      answer: the ids that the last len(answer) places should predict.
    """

    tokens: list[int]
    positions: list[int]
    block_positions: list[int]
    prefix: int
    answer: list[int]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a model says of an answer of n ids.

    Attributes:
      log_probabilities: [n] float32, of each id behind those before it.
      best: [n] bool, whether the id is the most likely one there.
    """

    log_probabilities: np.ndarray
    best: np.ndarray


def blank_row(
    part_a: Sequence[int], blank: int, start_id: int, given: Sequence[int], answer: Sequence[int]
) -> JudgedRow:
    """A row of a model that fills blanks.

        blank_row([C, x, M, E], 2, S, [], [a, b, END])
        tokens           C x M E | S a b
        positions        0 1 2 3 | 2 2 2
        block_positions  0 0 0 0 | 1 2 3         judged at the last three: a b END

    Args:
      part_a: its ids, mask included.
      blank: the place of the mask.
      start_id: first input of part B.
      given: ids of part B before the answer, not judged.
      answer: one id at least.
    """
    span = [start_id, *given, *answer[:-1]]
    return JudgedRow(
        [*part_a, *span],
        [*range(len(part_a)), *[blank] * len(span)],
        [*[0] * len(part_a), *range(1, len(span) + 1)],
        len(part_a),
        list(answer),
    )


def causal_row(text: Sequence[int], answer: Sequence[int]) -> JudgedRow:
    """A row of a causal model: `answer` behind `text`, one id of each at least."""
    tokens = [*text, *answer[:-1]]
    return JudgedRow(tokens, list(range(len(tokens))), [0] * len(tokens), 0, list(answer))


def judge(config: ResolvedModel, params: Params, rows: Sequence[JudgedRow]) -> list[Judgement]:
    """Runs rows, `ROWS` at a time.

    Raises:
      UserError: an empty answer, an id outside the vocabulary, or a row that does not fit the
        model's positions.
    """
    for row in rows:
        _check(row, config)
    judgements = []
    for start in range(0, len(rows), ROWS):
        judgements += _judge_some(config, params, rows[start : start + ROWS])
    return judgements


def _check(row: JudgedRow, config: ResolvedModel) -> None:
    if not row.answer:
        raise UserError("an answer is empty; it must hold one id at least")
    check_row([*row.tokens, *row.answer], config)
    # Of the places in part B, only the block positions grow.
    most = max(*row.positions, *row.block_positions) + 1
    if most > config.table_rows:
        raise UserError(
            f"a text that takes {most} positions does not fit the model's {config.table_rows} "
            f"(model.max_positions={config.max_positions})"
        )


def _judge_some(
    config: ResolvedModel, params: Params, rows: Sequence[JudgedRow]
) -> list[Judgement]:
    batch_size = power_of_two(len(rows))
    length = bucket(max(len(row.tokens) for row in rows))
    # Never below 8: a few more scores cost less than another program for every length.
    judged = max(8, power_of_two(max(len(row.answer) for row in rows)))
    places = np.zeros((3, batch_size, length), np.int32)
    answers = np.zeros((batch_size, judged), np.int32)
    sizes = np.zeros((3, batch_size), np.int32)
    for i, row in enumerate(rows):
        places[:, i, : len(row.tokens)] = row.tokens, row.positions, row.block_positions
        answers[i, : len(row.answer)] = row.answer
        sizes[:, i] = len(row.tokens), row.prefix, len(row.answer)
    found = _run(params, *places, *sizes, answers, config=config)
    scores, best = map(np.asarray, found)
    counts = [len(row.answer) for row in rows]
    return [Judgement(scores[i, :n], best[i, :n]) for i, n in enumerate(counts)]


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _run(
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    block_positions: jax.Array,
    length: jax.Array,
    prefix: jax.Array,
    judged: jax.Array,
    answers: jax.Array,
    *,
    config: ResolvedModel,
) -> tuple[jax.Array, jax.Array]:
    """tokens.. [B, T], length, prefix, judged [B], answers [B, A] -> [B, A] float32 and bool."""
    model = bind(config, params)
    place = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    seen = jnp.where(place < length[:, None], jnp.maximum(prefix[:, None], place + 1), 0).astype(
        jnp.int32
    )
    hidden = model(tokens, positions, block_positions, jnp.zeros_like(tokens), seen)
    first = jnp.maximum(length - judged, 0)
    index = jnp.minimum(first[:, None] + jnp.arange(answers.shape[1]), tokens.shape[1] - 1)
    hidden = jnp.take_along_axis(hidden, index[..., None], axis=1)

    def row(inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden, ids = inputs
        scores = model.logits(hidden)
        wanted = jnp.take_along_axis(scores, ids[:, None], axis=-1)[:, 0]
        return wanted - jax.nn.logsumexp(scores, axis=-1), jnp.argmax(scores, axis=-1) == ids

    # One row after another: the scores of all at once would be the largest array of all.
    return jax.lax.map(row, (hidden, answers))
