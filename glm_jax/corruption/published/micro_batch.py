"""What the published loader does in one call: one objective for all rows of a micro-batch."""

import dataclasses
import random
from collections.abc import Callable

import numpy as np

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.corruption.published.crops import crop_rows
from glm_jax.corruption.published.examples import Fields, Rules
from glm_jax.corruption.published.text_rows import TextRow


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """The examples of a micro-batch.

    Attributes:
      objective: `SPAN`, `SENTENCE` or `DOCUMENT` of `glm_jax.batch`, that of all examples.
      examples: for each row a list of examples, each the fields of a `Batch` by name: one example,
        none where the original drops the row, several where it cuts the row into short texts.
    """

    objective: int
    examples: list[list[Fields]]


def build_micro_batch(
    rows: list[TextRow], rules: Rules, rng: random.Random, hide: random.Random
) -> MicroBatch:
    """Draws an objective and corrupts the rows as the published loader does.

    Args:
      rows: the texts, at least one; see `text_row`.
      rules: objectives, ids, sentence ends.
      rng: `random.Random(number of the micro-batch)` in the original.
      hide: draws where [dBLOCK] goes; the original uses Python's global generator.
    """
    config = rules.config
    texts = [[row] for row in rows]
    if rng.random() < config.published.short_sequence_rate:
        texts = crop_rows(
            rows,
            rng,
            cls_id=rules.special.cls,
            sentence_ends=rules.sentence_ends,
            length=config.published.row_length,
        )
    # In the original single spans come first, and the other rates share the remainder.
    single_rate = config.span_rate * config.single_span_rate
    single = rng.random() < single_rate
    which = 0.0 if single else single_rate + rng.random() * (1 - single_rate)
    if single or which < config.span_rate:
        return MicroBatch(SPAN, _all(texts, lambda text: rules.spans(text, rng, hide, single)))
    if which < config.span_rate + config.sentence_rate:
        return MicroBatch(SENTENCE, _all(texts, lambda text: rules.sentences(text, rng)))
    sizes = [len(text.tokens) for row in texts for text in row]
    least, most = int(config.document_min_ratio * min(sizes)), max(sizes) - 2
    longest = rng.randint(least, max(least, most))
    return MicroBatch(DOCUMENT, _all(texts, lambda text: rules.document(text, longest, rng)))


def _all(
    texts: list[list[TextRow]], build: Callable[[TextRow], Fields | None]
) -> list[list[Fields]]:
    """Builds text by text, in order; texts whose spans do not fit are dropped."""
    built = [[build(text) for text in row] for row in texts]
    return [[fields for fields in row if fields is not None] for row in built]


def collate(examples: list[Fields]) -> dict[str, np.ndarray]:
    """The tensors that the published loader hands to its model.

    Args:
      examples: B of them, of at most T slots.

    Returns:
      text, target, loss_mask [B, T], padded with zeros on the right (which are no padding tokens);
      position_id [B, 2, T], for masked LM [B, T]; attention_mask [B], the slots in part A.
    """
    longest = max(len(fields["tokens"]) for fields in examples)

    def padded(name: str) -> np.ndarray:
        rows = [fields[name] for fields in examples]
        return np.stack([np.pad(row, (0, longest - len(row))) for row in rows])

    positions = padded("positions")
    if any(fields["block_positions"].any() for fields in examples):
        positions = np.stack([positions, padded("block_positions")], axis=1)
    return {
        "text": padded("tokens"),
        "target": padded("targets"),
        "loss_mask": padded("loss_weights"),
        "position_id": positions,
        "attention_mask": np.array([fields["attend_end"][0] for fields in examples]),
    }
