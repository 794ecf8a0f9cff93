"""The causal twin of `glm.py`: its width, layers, text, rows, steps and rate.

    python -m glm_jax.train --config configs/proofs/causal.py --workdir runs/proofs/causal_0

It reads from left to right alone and predicts every token. It has one table of positions where GLM
has two.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, ObjectiveConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    glm = load_config(Path(__file__).with_name("glm.py"))
    return dataclasses.replace(
        glm,
        model=dataclasses.replace(glm.model, position_encoding="learned"),
        objective=ObjectiveConfig(span_rate=0.0, causal_rate=1.0),
    )
