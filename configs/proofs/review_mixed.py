"""`review.py` with 65 % of the rows of the bundled text, cut as at the end of pre-training.

    python -m glm_jax.train --config configs/proofs/review_mixed.py --workdir runs/mine

Steps and slots are the same, so a third as many reviews are read. A row of text has many more
targets than one of reviews: with the mean of objectives the reviews count as much as the texts'
spans.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review.py"))
    bundled = load_config(Path(__file__).parents[1] / "bundled_end.py")
    return dataclasses.replace(
        tuned,
        examples=dataclasses.replace(
            tuned.examples, pretraining_rate=0.65, pretraining_source="bundled"
        ),
        objective=bundled.objective,
        train=dataclasses.replace(tuned.train, loss_reduction="objective_mean"),
    )
