"""[dBLOCK]: hides some input tokens, in part B or near the masks of part A; targets stay.

Both functions change rows already written. Special ids never come from text, so masks, [CLS] and
eos can be found by their ids.
"""

import numpy as np

from glm_jax.batch import SPAN
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.draws import Draws, Purpose, unit
from glm_jax.errors import UserError
from glm_jax.ragged import within_groups
from glm_jax.special_tokens import SpecialTokens

# Context is hidden at up to this many slots from a mask, within part A.
REACH = 3


def block_id(config: ObjectiveConfig, special: SpecialTokens, vocab_size: int) -> int:
    """The id of [dBLOCK]; -1 where nothing is hidden.

    Args:
      config: may give the id (`published.block_mask_id`).
      special: may have the id (`block`).
      vocab_size: of the tokenizer; text has no ids from there on.

    Raises:
      UserError: tokens are to be hidden and neither config nor vocabulary has an id for that, or
        an id given by the config is one that text has.
    """
    options = config.published
    for name in ("block_mask_id", "sentinel_id"):
        given = getattr(options, name)
        if given is not None and given < vocab_size and given != special.block:
            raise UserError(
                f"objective.published.{name} must be an id that text does not have, {vocab_size} "
                f"(the tokenizer's size) or more; got {given}"
            )
    name = "block_mask_rate" if options.block_mask_rate else "context_mask_ratio"
    if not getattr(options, name):
        return -1
    id_ = special.block if options.block_mask_id is None else options.block_mask_id
    if id_ is None:
        raise UserError(
            f"objective.published.{name}={getattr(options, name)} needs the control symbol "
            "[dBLOCK], which the vocabulary lacks; give objective.published.block_mask_id a spare "
            "id below model.vocab_size, or set the rate to 0"
        )
    return id_


def hide_inputs(fields: dict[str, np.ndarray], draws: Draws, rate: float, block_id: int) -> None:
    """Hides each input of part B in span segments at a rate; start tokens and targets stay.

        tokens   C a M d E S b c  ->  C a M d E S # c      # = block_id
        targets  C a M d E b c P      C a M d E b c P

    Args:
      fields: of a Batch [R, T]; changed.
      draws: of the R rows.
      rate: probability of hiding a token.
      block_id: [dBLOCK].
    """
    inside = (fields["objective"] == SPAN) & (fields["block_positions"] > 1)
    hidden = unit(draws.integers(Purpose.HIDE, inside.sum(axis=1))) < rate
    fields["tokens"][inside] = np.where(hidden, block_id, fields["tokens"][inside])


def hide_context(
    fields: dict[str, np.ndarray],
    draws: Draws,
    ratio: float,
    block_id: int,
    special: SpecialTokens,
    sentinel_id: int | None = None,
) -> None:
    """Hides tokens in part A of span segments, drawn from those within `REACH` slots of a mask.

        tokens  C a b c d M f g h i E S e  ->  C a b # d M f # h i E S e     out of b c d f g h

    Args:
      fields: of a Batch [R, T]; changed.
      draws: of the R rows.
      ratio: hidden tokens as a fraction of a segment's tokens, masked ones included.
      block_id: [dBLOCK].
      special: ids that are not hidden.
      sentinel_id: the first sentinel id; ids from there on are masks too.
    """
    tokens, part_a = fields["tokens"], fields["block_positions"] == 0
    start, used = fields["attend_start"], fields["attend_end"] > 0
    masks = tokens == special.mask
    if sentinel_id is not None:
        masks |= tokens >= sentinel_id
    masks &= part_a & used
    near = np.zeros_like(masks)
    for distance in range(1, REACH + 1):
        same = (start[:, distance:] == start[:, :-distance]) & used[:, distance:]
        near[:, distance:] |= masks[:, :-distance] & same
        near[:, :-distance] |= masks[:, distance:] & same
    near &= part_a & used & ~masks & (tokens != special.cls) & (tokens != special.eos)

    # Size and budget of each segment, in row order; padding belongs to none.
    first = used & (np.arange(tokens.shape[1]) == start)
    begin = np.flatnonzero(first)
    if not len(begin):
        return
    segment = np.cumsum(first) - 1
    spans = np.add.reduceat(masks.ravel().astype(np.int64), begin)
    size = np.add.reduceat(used.ravel().astype(np.int64), begin) - 2 * spans
    is_span = np.maximum.reduceat(fields["objective"].ravel(), begin) == SPAN
    budget = np.where(is_span, (ratio * size).astype(np.int64), 0)

    slots = np.flatnonzero(near)
    keys = draws.integers(Purpose.CONTEXT, near.sum(axis=1))
    drawn = slots[np.argsort((segment[slots] << 32) | keys, kind="stable")]
    counts = np.bincount(segment[slots], minlength=len(begin))
    tokens.ravel()[drawn[within_groups(counts) < budget[segment[drawn]]]] = block_id
