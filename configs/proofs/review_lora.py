"""`review.py` with LoRA.

    python -m glm_jax.train --config configs/proofs/review_lora.py --workdir runs/mine

Adapters of rank 32 on all matrices of the layers are trained, all else is frozen.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, LoraConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review.py"))
    return dataclasses.replace(
        tuned,
        lora=LoraConfig(rank=32, targets="all", dropout=0.0),
    )
