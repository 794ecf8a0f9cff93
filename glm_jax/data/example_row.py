"""A short English text as a row of a config's own objective, small enough to be shown whole."""

import dataclasses

import numpy as np

from glm_jax.batch import OF_TEXTS, Batch
from glm_jax.config import Config
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.plan import Segments
from glm_jax.data.picture import objective_of, segments, slots_used
from glm_jax.tokenizers.protocol import Tokenizer

TEXT = "The light was good. Then the night came, and it was long. The king was old."
_LENGTH = 32
# Rows tried: the one with most spans is shown, so that their order can be seen.
_TRIED = 64


def example_row(config: Config, tokenizer: Tokenizer) -> Batch:
    """`TEXT`, corrupted by the first objective with a rate above 0.

    Args:
      config: of the run; `objective.published.loader` is ignored, since its rows are drawn in
        other ways.
      tokenizer: of the run.

    Returns:
      One row, a Batch of [T] arrays without padding, T <= 32.
    """
    rates = {name: getattr(config.objective, f"{name}_rate") for name in OF_TEXTS}
    wanted = next(name for name, rate in rates.items() if rate > 0)
    plain = dataclasses.replace(
        config.objective.published, loader=False, short_sequence_rate=0.0, random_position=False
    )
    objective = dataclasses.replace(config.objective, published=plain)
    # Leaves room for [CLS], eos, and two slots for each of a few spans.
    ids = np.array(tokenizer.encode(TEXT)[: _LENGTH - 12], np.int64)
    corruptor = Corruptor(
        objective, tokenizer.special, tokenizer.sentence_ends(), _LENGTH, config.train.seed
    )
    rows = np.arange(_TRIED)
    whole = np.ones(_TRIED, np.bool_)
    whole_text = Segments(
        counts=np.ones_like(rows),
        source=np.zeros_like(rows),
        size=np.full_like(rows, len(ids)),
        begins=whole,
        ends=whole,
    )
    fields, _ = corruptor.build(whole_text, ids, np.zeros_like(rows), rows)
    found = [Batch(**{name: value[row] for name, value in fields.items()}) for row in rows]
    of_objective = [row for row in found if objective_of(row) == wanted] or found
    best = max(of_objective, key=lambda row: sum(len(part.spans) for part in segments(row)))
    used = slots_used(best)
    return Batch(**{name: value[:used] for name, value in best.to_dict().items()})
