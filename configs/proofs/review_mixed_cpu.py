"""`review_cpu.py` in which every fourth row is of the bundled text, cut as in `glm_cpu.py`.

    python -m glm_jax.train --config configs/proofs/review_mixed_cpu.py --workdir runs/mine

Steps and slots are the same, so fewer reviews are read.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    tuned = load_config(Path(__file__).with_name("review_cpu.py"))
    base = load_config(Path(__file__).with_name("glm_cpu.py"))
    return dataclasses.replace(
        tuned,
        examples=dataclasses.replace(
            tuned.examples, pretraining_rate=0.25, pretraining_source="bundled"
        ),
        objective=base.objective,
    )
