"""`review.py` with P-Tuning v2.

    python -m glm_jax.train --config configs/proofs/review_ptuning.py --workdir runs/mine

A prefix of 32 keys and values per layer is trained, all else is frozen.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review.py"))
    return dataclasses.replace(
        tuned,
        model=dataclasses.replace(tuned.model, prefix_length=32, prefix_dropout_rate=0.0),
        train=dataclasses.replace(tuned.train, trainable="prefix/.*"),
    )
