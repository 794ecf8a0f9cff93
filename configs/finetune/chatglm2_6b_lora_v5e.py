"""ChatGLM2-6B with LoRA on eight chips of v5e (2x4): the frozen base is split over them.

    python -m glm_jax.train --config configs/finetune/chatglm2_6b_lora_v5e.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set data.tokenizer=chatglm2-6b \\
        --set 'data.source=my/*.jsonl'

`python -m glm_jax.plan --topology v5e:2x4` says (an estimate of the compiler, nothing ran): peak
8.57 of 15.75 GiB, 1,794 ms a step of 65,536 tokens, 4,566 tokens/s per chip.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("chatglm2_6b_lora_h100.py"))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=32),
    )
