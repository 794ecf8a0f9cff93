"""Log-probabilities of given answers: each row ends in the inputs that predict one answer.

    a blank           part A  C x [M] y E | S  a  b       scored: a b END     (cloze)
    left to right     part A  C [M]       | S  x  y  a    scored: a b         (choices, perplexity)
    causal                    x  y  a                     scored: a b         (ChatGLM2 and later)

C is [CLS], E <|endoftext|>, S <|startofpiece|>. As in training, each input predicts the next id, so
the last id of an answer is no input.
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
from glm_jax.sharding.mesh import on_host, with_mesh_of_params

# Rows that run at once; their logits are computed one row at a time.
ROWS = 8


@dataclasses.dataclass(frozen=True)
class ScoredRow:
    """A row of T slots, and the answer in it that is scored.

    Attributes:
      tokens, positions, block_positions: T numbers each.
      prefix: length of part A in slots; 0 for a causal model.
      answer: the targets of the last len(answer) slots.
    """

    tokens: list[int]
    positions: list[int]
    block_positions: list[int]
    prefix: int
    answer: list[int]


@dataclasses.dataclass(frozen=True)
class TokenScores:
    """The scores of the n ids of an answer.

    Attributes:
      log_probabilities: [n] float32, of each id given all ids before it, in nats.
      best: [n] bool, whether the id is the most probable one there.
    """

    log_probabilities: np.ndarray
    best: np.ndarray


def blank_row(
    part_a: Sequence[int], blank: int, start_id: int, given: Sequence[int], answer: Sequence[int]
) -> ScoredRow:
    """A row of a model that fills blanks.

        blank_row([C, x, M, E], 2, S, [], [a, b, END])
        tokens           C x M E | S a b
        positions        0 1 2 3 | 2 2 2
        block_positions  0 0 0 0 | 1 2 3         targets of the last three slots: a b END

    Args:
      part_a: the ids of part A, mask included.
      blank: index of the mask in part A.
      start_id: first input of part B.
      given: ids of part B before the answer; not scored.
      answer: one id at least.
    """
    span = [start_id, *given, *answer[:-1]]
    return ScoredRow(
        [*part_a, *span],
        [*range(len(part_a)), *[blank] * len(span)],
        [*[0] * len(part_a), *range(1, len(span) + 1)],
        len(part_a),
        list(answer),
    )


def causal_row(text: Sequence[int], answer: Sequence[int]) -> ScoredRow:
    """A row of a causal model: `answer` follows `text`, one id of each at least."""
    tokens = [*text, *answer[:-1]]
    return ScoredRow(tokens, list(range(len(tokens))), [0] * len(tokens), 0, list(answer))


def score_rows(
    config: ResolvedModel, params: Params, rows: Sequence[ScoredRow]
) -> list[TokenScores]:
    """Scores the answer of each row; runs `ROWS` rows at a time.

    Raises:
      UserError: an empty answer, an id outside the vocabulary, or a row that does not fit the
        model's positions.
    """
    for row in rows:
        _check(row, config)
    found: list[TokenScores] = []
    for start in range(0, len(rows), ROWS):
        found += _score_some(config, params, rows[start : start + ROWS])
    return found


def _check(row: ScoredRow, config: ResolvedModel) -> None:
    if not row.answer:
        raise UserError("an answer is empty; it must hold one id at least")
    check_row([*row.tokens, *row.answer], config)
    # In part B positions stay the same, and block positions grow.
    most = max(*row.positions, *row.block_positions) + 1
    if most > config.table_rows:
        raise UserError(
            f"a text that takes {most} positions does not fit the model's {config.table_rows} "
            f"(model.max_positions={config.max_positions})"
        )


def _score_some(
    config: ResolvedModel, params: Params, rows: Sequence[ScoredRow]
) -> list[TokenScores]:
    batch_size = power_of_two(len(rows))
    length = bucket(max(len(row.tokens) for row in rows))
    # At least 8: a few logits too many cost less than compiling for each length of answer.
    longest = max(8, power_of_two(max(len(row.answer) for row in rows)))
    inputs = np.zeros((3, batch_size, length), np.int32)
    answers = np.zeros((batch_size, longest), np.int32)
    sizes = np.zeros((3, batch_size), np.int32)
    for i, row in enumerate(rows):
        inputs[:, i, : len(row.tokens)] = row.tokens, row.positions, row.block_positions
        answers[i, : len(row.answer)] = row.answer
        sizes[:, i] = len(row.tokens), row.prefix, len(row.answer)
    found = _run(params, *inputs, *sizes, answers, config=config)
    log_probabilities, best = map(on_host, found)
    counts = [len(row.answer) for row in rows]
    return [TokenScores(log_probabilities[i, :n], best[i, :n]) for i, n in enumerate(counts)]


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _run(
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    block_positions: jax.Array,
    length: jax.Array,
    prefix: jax.Array,
    counts: jax.Array,
    answers: jax.Array,
    *,
    config: ResolvedModel,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of the answers' ids, and whether each id is the most probable one.

    Args:
      tokens, positions, block_positions: [B, T] int32.
      length, prefix, counts: [B] int32, slots of a row, of part A, and ids of the answer.
      answers: [B, A] int32.

    Returns:
      [B, A] float32 and [B, A] bool; what lies behind `counts` has no meaning.
    """
    model = bind(config, params)
    slot = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    attend_end = jnp.where(slot < length[:, None], jnp.maximum(prefix[:, None], slot + 1), 0)
    hidden = model(
        tokens,
        positions,
        block_positions,
        jnp.zeros_like(tokens),
        attend_end.astype(jnp.int32),
    )
    first = jnp.maximum(length - counts, 0)
    index = jnp.minimum(first[:, None] + jnp.arange(answers.shape[1]), tokens.shape[1] - 1)
    hidden = jnp.take_along_axis(hidden, index[..., None], axis=1)

    def row(inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden, ids = inputs
        logits = model.logits(hidden)
        wanted = jnp.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
        return wanted - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == ids

    # One row after another: the logits of all rows would be the largest array of the program.
    return jax.lax.map(row, (hidden, answers))
