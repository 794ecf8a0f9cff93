"""What the tests of the published loader share: its toy ids and options as a config."""

import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.config import ObjectiveConfig, PublishedOptions
from glm_jax.corruption.published.examples import Rules
from glm_jax.special_tokens import SpecialTokens

GOLDEN = Path(__file__).parents[2] / "golden" / "glm"


@pytest.fixture(scope="session")
def golden():
    """Reads a file of golden numbers, by its path below `tests/golden/glm`."""
    return lambda name: json.loads((GOLDEN / name).read_text())


@pytest.fixture(scope="session")
def toy_rules():
    """`Rules` of the golden files: their options (defaults as the original's) and ids."""

    def make(options, length, eos=0):
        single = options.get("single_span_prob", 0.0)
        # The original's rates are those of what single spans leave.
        spans = single + (1 - single) * options.get("bert_prob", 0.5)
        sentences = (1 - single) * options.get("gap_sentence_prob", 0.0)
        config = ObjectiveConfig(
            span_rate=spans,
            sentence_rate=sentences,
            document_rate=1.0 - spans - sentences,
            single_span_rate=single and single / spans,
            document_min_ratio=options.get("gpt_min_ratio", 0.5),
            document_prefix_rate=options.get("gpt_infill_prob", 0.5),
            published=PublishedOptions(
                loader=True,
                row_length=length,
                short_sequence_rate=options.get("short_seq_prob", 0.0),
                block_mask_rate=options.get("block_mask_prob", 0.0),
                task_masks=options.get("task_mask", False),
                masked_lm=options.get("masked_lm", False),
            ),
        )
        special = SpecialTokens(
            mask=2, gmask=7, smask=8, start=5, end=6, cls=1, eos=eos, pad=eos, block=9
        )
        return Rules(config, special, 9, np.isin(np.arange(256), range(10, 16)))

    return make
