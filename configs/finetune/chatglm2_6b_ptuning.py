"""ChatGLM2-6B with P-Tuning v2: a trained prefix of 128 keys and values per layer, all else frozen.

    python -m glm_jax.train --config configs/finetune/chatglm2_6b_ptuning.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set data.tokenizer=chatglm2-6b \\
        --set 'data.source=my/*.jsonl'

The recipe is the published one: 128 keys, a learning rate of 2e-2 that falls to 0, 3000 steps of 16
rows, dropout 0.1. `--set model.prefix_projection=4096` trains an MLP that makes the prefix instead.
`glm_jax.load("chatglm2-6b", adapter=DIR)` is the tuned model.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, LoraConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("chatglm2_6b_lora_h100.py"))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, prefix_length=128),
        optimizer=dataclasses.replace(
            config.optimizer,
            peak_learning_rate=2e-2,
            schedule="linear",
            warmup_steps=0,
            final_ratio=0.0,
        ),
        train=dataclasses.replace(config.train, trainable="prefix/.*"),
        lora=LoraConfig(),
    )
