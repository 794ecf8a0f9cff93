"""A reward model on the pairs of configs/align/dpo_cpu.py: which answer is the better one?

    python examples/dpo.py --write runs/align/pairs.jsonl
    python -m glm_jax.train --config configs/align/reward_cpu.py --workdir runs/reward

All of the small chat model is trained, and a value head that is drawn anew. `eval/accuracy` is the
share of held-out pairs whose chosen answer has the higher reward;

    glm_jax.load("runs/reward").rewards([[question, answer], ..])

gives rewards of conversations. The checkpoint is one of ours: published formats have no value head.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, PreferencesConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("dpo_cpu.py"))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, value_head=True),
        train=dataclasses.replace(config.train, loss="reward", stop_above=None),
        preferences=PreferencesConfig(),
    )
