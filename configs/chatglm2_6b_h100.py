"""ChatGLM2-6B, trained on from its checkpoint, on one host of eight H100 GPUs (80 GB, SXM).

    python -m glm_jax.train --config configs/chatglm2_6b_h100.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set 'data.source=text/*.jsonl'

Without `train.init_from` the parameters are drawn. Saving products and taking 4 rows a GPU twice is
what `--tune` and memory to spare ask for (docs/performance.md).

    python -m glm_jax.plan --config configs/chatglm2_6b_h100.py --topology h100:8

says of the host (an estimate of the compiler, nothing ran): peak 37.80 of 59.33 GiB, 1029 ms a step
of 131,072 tokens, 15,925 tokens/s a GPU, 100 B tokens in 1,744 GPU-hours.

Goodput, assumed and not measured: 97 %. A checkpoint every 9 minutes is 74.9 GB, written and read
back at 1 GB/s in 150 s beside training; a stall of 10 s to copy it from eight GPUs is 1.9 %. An
evaluation of 8 batches at a third of a step, as often, is 0.5 %. One stop a day loses half of 9
minutes, and 8 to come back: 0.9 %.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, DataConfig, MeshConfig
from glm_jax.config.files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("chatglm2_6b_v5e.py"))
    return dataclasses.replace(
        config,
        compute=dataclasses.replace(config.compute, remat="dots"),
        data=DataConfig(source="text/*.jsonl", sequence_length=2048, batch_size=64),
        train=dataclasses.replace(config.train, accumulation_steps=2),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
