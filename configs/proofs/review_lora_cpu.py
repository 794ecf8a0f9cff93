"""`review_cpu.py` with LoRA.

    python -m glm_jax.train --config configs/proofs/review_lora_cpu.py --workdir runs/mine

Adapters of rank 8 on all matrices of the layers and the last norm are trained, all else is frozen.
The norm, since the LM head is the token embedding of a small base: its vectors are short, and with
the norm as it is both words together got no more than a seventh of the probability.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, LoraConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review_cpu.py"))
    return dataclasses.replace(
        tuned,
        lora=LoraConfig(rank=8, targets="all", dropout=0.0),
        train=dataclasses.replace(tuned.train, trainable="final_norm/.*"),
    )
