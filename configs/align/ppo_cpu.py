"""PPO of the model and the questions of grpo_cpu.py, with a value head: minutes on two cores.

python -m glm_jax.train --config configs/align/ppo_cpu.py --workdir runs/counter_ppo
"""

import dataclasses
import runpy
from pathlib import Path

from glm_jax.config import Config, PolicyConfig


def get_config() -> Config:
    grpo = runpy.run_path(str(Path(__file__).with_name("grpo_cpu.py")))["get_config"]()
    return dataclasses.replace(
        grpo,
        # Drawn anew over the model that the run begins with.
        model=dataclasses.replace(grpo.model, value_head=True),
        train=dataclasses.replace(grpo.train, loss="ppo"),
        # Answers to a prompt are not compared with each other.
        rollouts=dataclasses.replace(grpo.rollouts, group_size=1, passes=2),
        # Taken from the reward of each token.
        policy=PolicyConfig(kl_beta=0.1),
    )
