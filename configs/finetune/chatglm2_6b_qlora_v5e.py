"""ChatGLM2-6B with QLoRA on one chip of v5e (16 GB): the frozen matrices are int4.

    python -m glm_jax.train --config configs/finetune/chatglm2_6b_qlora_v5e.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set data.tokenizer=chatglm2-6b \\
        --set 'data.source=my/*.jsonl'

`train.init_from` may be the model in 16 bits, which is quantised as it is read, or a published
int4 directory, whose integers are taken as they are.

    python -m glm_jax.plan --config configs/finetune/chatglm2_6b_qlora_v5e.py --topology v5e:1x1

says (an estimate of the compiler, nothing ran): peak 4.67 of 15.75 GiB, 7,770 ms a step of 32,768
tokens, 4,217 tokens/s, a checkpoint of 0.05 GB.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("chatglm2_6b_lora_h100.py"))
    return dataclasses.replace(
        config,
        compute=dataclasses.replace(config.compute, remat="full"),
        train=dataclasses.replace(config.train, accumulation_steps=16, quantize_base="int4"),
    )
