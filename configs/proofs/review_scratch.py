"""`review.py` without pre-training.

    python -m glm_jax.train --config configs/proofs/review_scratch.py --workdir runs/mine

The model is the same, from random parameters, with heads that begin at their neighbours.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review.py"))
    base = load_config(Path(__file__).with_name("glm.py"))
    dropout_rate = tuned.model.dropout_rate
    return dataclasses.replace(
        tuned,
        model=dataclasses.replace(base.model, dropout_rate=dropout_rate),
        train=dataclasses.replace(tuned.train, init_from=None, local_start=True),
    )
