"""The end of the bundled model's training: few blanks in a row, as people write them.

    python -m glm_jax.train --config configs/bundled_end.py --workdir runs/bundled_end

With 30 % masked (`bundled.py`) words are learned fast, but a model comes to tell a blank's end
by how many masks stand around it, and where there is one alone, it goes on. Here a row has two or
three, and the model of `runs/bundled` goes on from where it is.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, TrainConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    first = load_config(Path(__file__).with_name("bundled.py"))
    return dataclasses.replace(
        first,
        objective=dataclasses.replace(
            first.objective, span_rate=0.9, causal_rate=0.05, mask_ratio=0.08
        ),
        optimizer=dataclasses.replace(first.optimizer, peak_learning_rate=6e-4, warmup_steps=100),
        train=TrainConfig(
            num_steps=4000,
            seed=1,
            init_from="runs/bundled",
            log_every=100,
            eval_every=1000,
            eval_batches=64,
            checkpoint_every=2000,
            sample_every=2000,
        ),
    )
