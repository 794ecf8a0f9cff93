"""ChatGLM2-6B with QLoRA on one chip of v5e (16 GB): the frozen matrices are int4.

    python -m glm_jax.train --config configs/finetune/chatglm2_6b_qlora_v5e.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set 'data.source=text/*.jsonl'

`train.init_from` may be the model in 16 bits, which is quantised as it is read, or a published
int4 directory, whose integers are taken as they are.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("chatglm2_6b_lora_h100.py"))
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, accumulation_steps=16, quantize_base="int4"),
    )
