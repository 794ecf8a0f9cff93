"""Prompts of the decoding engine, and checks of them that run before anything is computed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from glm_jax.checks import whole_number
from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.given import check_special_ids
from glm_jax.generation.options import BeamSearch, Limits, Marks, check_beams
from glm_jax.generation.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A row to decode from.

    Attributes:
      ids: one at least.
      limits: when its answers end.
      how: how ids are chosen. Of a `BeamSearch`, `Engine.start` uses the bans alone, and
        `Engine.search` is given the rest.
      blanks: positions of its blanks; unused by a causal model.
      start_id: first input of a span; unused by a causal model.
    """

    ids: Sequence[int]
    limits: Limits
    how: Sampling | BeamSearch
    blanks: Sequence[int] = ()
    start_id: int = 0


def blank_prompts(
    rows: Sequence[Sequence[int]], marks: Marks, limits: Limits, how: Sampling | BeamSearch
) -> list[Prompt]:
    """Prompts with the positions of their blanks."""
    return [
        Prompt(
            row,
            limits,
            how,
            np.flatnonzero(np.isin(np.array(row), list(marks.mask_ids))).tolist(),
            marks.start_id,
        )
        for row in rows
    ]


def check_blanks(
    rows: Sequence[Sequence[int]],
    config: ModelConfig,
    marks: Marks,
    limits: Limits,
    how: Sampling | BeamSearch,
) -> None:
    """Raises UserError if `fill_rows` or a beam search cannot fill these rows; says why."""
    if not len(rows):
        raise UserError("no texts to fill; give one at least")
    for row in rows:
        _check(row, config, marks.mask_ids, limits.max_new_tokens)
    check_special_ids(
        config, mask_ids=marks.mask_ids, start_id=marks.start_id, end_ids=limits.end_ids
    )
    _check_answers(config, limits, how)
    if limits.max_total_tokens is not None:
        whole_number("max_total_tokens", limits.max_total_tokens, least=1)


def _check(
    row: Sequence[int], config: ModelConfig, mask_ids: Sequence[int], max_new_tokens: int
) -> None:
    if not set(row) & set(mask_ids):
        raise UserError(f"no blank to fill: none of the mask ids {list(mask_ids)} is in the text")
    check_row(row, config)
    rows = config.table_rows
    if len(row) > rows:
        raise UserError(
            f"a text of {len(row)} tokens does not fit the model's {rows} positions "
            f"(model.max_positions={config.max_positions})"
        )
    check_new_tokens(max_new_tokens)
    # The ids fed have block positions 1 (start id) to max_new_tokens. A model without block
    # positions was trained on no longer spans either, and its cache is allocated for the longest.
    if max_new_tokens >= rows:
        kind = "block positions" if config.uses_block_positions else "positions"
        raise UserError(
            f"max_new_tokens={max_new_tokens} does not fit the model's {rows} {kind}; "
            f"at most {rows - 1}"
        )


def text_prompts(
    rows: Sequence[Sequence[int]],
    config: ModelConfig,
    limits: Limits,
    how: Sampling | BeamSearch,
    marks: Marks | None = None,
) -> list[Prompt]:
    """Prompts to which the answer is the text that follows, after checks.

    A causal model continues any row. A model that fills blanks does so with rows that end in the
    start id, as those of ChatGLM-6B; the answer is what fills their blank:

        x0 x1 [gMASK] sop    ->    fill the blank at slot 2 of x0 x1 [gMASK]

    Args:
      rows, limits, how: as of `generate_rows`.
      config: of the model.
      marks: of a model that fills blanks; None: its blanks are not known.

    Raises:
      UserError: the rows cannot be continued; says why.
    """
    check_prompts(rows, config, limits, how, marks)
    if config.continues_texts or marks is None:
        return [Prompt(row, limits, how) for row in rows]
    return [
        Prompt(row[:-1], limits, how, [_blank_of(row[:-1], marks)], marks.start_id) for row in rows
    ]


def _blank_of(row: Sequence[int], marks: Marks) -> int:
    """The slot of the blank that an answer belongs to: of [gMASK], else the first."""
    masks = [marks.gmask_id] if marks.gmask_id in row else marks.mask_ids
    return next(slot for slot, id_ in enumerate(row) if id_ in masks)


def check_prompts(
    rows: Sequence[Sequence[int]],
    config: ModelConfig,
    limits: Limits,
    how: Sampling | BeamSearch,
    marks: Marks | None = None,
) -> None:
    """Raises UserError if `generate_rows` or a beam search cannot continue these rows; says why."""
    fills = not config.continues_texts
    if fills and marks is None:
        raise UserError(
            "this model fills blanks and does not continue texts (it has block positions, as GLM); "
            "put a mask where text is to be filled in, and use fill_blanks"
        )
    _check_answers(config, limits, how)
    check_special_ids(config, eos_ids=limits.end_ids)
    if not len(rows):
        raise UserError("no prompts; give a list of lists of ids, one at least")
    for index, row in enumerate(rows):
        if not len(row):
            raise UserError(f"prompt {index} is empty; it must hold one id at least")
        check_row(row, config)
        if fills and marks is not None and not _ends_in_a_blank(row, marks):
            raise UserError(
                "this model fills blanks and does not continue texts, but for a prompt that has a "
                f"mask, one of {list(marks.mask_ids)}, and ends in its first start id "
                f"{marks.start_id}; prompt {index} has not: use fill_blanks for others"
            )
        if len(row) + limits.max_new_tokens > config.max_positions:
            raise UserError(
                f"prompt {index} of {len(row)} tokens and max_new_tokens={limits.max_new_tokens} "
                f"do not fit the model's context of {config.max_positions} (model.max_positions)"
            )


def _ends_in_a_blank(row: Sequence[int], marks: Marks) -> bool:
    *before, last = row
    ids = set(before)
    return last == marks.start_id and last not in ids and bool(ids & set(marks.mask_ids))


def _check_answers(config: ModelConfig, limits: Limits, how: Sampling | BeamSearch) -> None:
    check_new_tokens(limits.max_new_tokens, how.min_new_tokens)
    if isinstance(how, BeamSearch):
        check_beams(how, config, limits.end_ids)


def check_row(row: Sequence[int], config: ModelConfig) -> None:
    """Raises UserError if an id is outside the vocabulary."""
    if min(row) < 0 or max(row) >= config.vocab_size:
        odd = min(row) if min(row) < 0 else max(row)
        raise UserError(f"id {odd} is outside the vocabulary of {config.vocab_size}")


def check_new_tokens(max_new_tokens: int, min_new_tokens: int = 0) -> None:
    """Raises UserError if max_new_tokens is below 1 or below min_new_tokens."""
    whole_number("max_new_tokens", max_new_tokens, least=1)
    if min_new_tokens > max_new_tokens:
        raise UserError(
            f"min_new_tokens must be at most max_new_tokens={max_new_tokens}; got {min_new_tokens}"
        )
