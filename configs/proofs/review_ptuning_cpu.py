"""`review_cpu.py` with P-Tuning v2.

    python -m glm_jax.train --config configs/proofs/review_ptuning_cpu.py --workdir runs/mine

A prefix of 32 keys and values per layer and the last norm are trained, all else is frozen; why the
norm, `review_lora_cpu.py` says.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review_cpu.py"))
    return dataclasses.replace(
        tuned,
        model=dataclasses.replace(tuned.model, prefix_length=32, prefix_dropout_rate=0.0),
        train=dataclasses.replace(tuned.train, trainable="(prefix|final_norm)/.*"),
    )
