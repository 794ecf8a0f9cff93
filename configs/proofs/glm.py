"""The GLM of the cloze proof: the bundled model's recipe on text that is four fifths Chinese.

    python -m glm_jax.train --config configs/proofs/glm.py --workdir runs/proofs/glm_0

It is what `review.py` tunes, and `causal.py` is its twin (docs/proofs.md). Half of the bundled
model's steps: minutes on a GPU, hours on a CPU.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, TrainConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    bundled = load_config(Path(__file__).parents[1] / "bundled.py")
    mixture = {"en": ("bundled:en", 0.2), "zh": ("bundled:zh", 0.8)}
    return dataclasses.replace(
        bundled,
        data=dataclasses.replace(bundled.data, mixture=mixture),
        train=TrainConfig(
            num_steps=6000,
            local_start=True,
            log_every=100,
            eval_every=2000,
            eval_batches=32,
            checkpoint_every=2000,
        ),
    )
