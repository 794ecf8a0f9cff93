"""ChatGLM2-6B, trained on from its checkpoint, on one host of eight H100 GPUs (80 GB).

    python -m glm_jax.train --config configs/chatglm2_6b_h100.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set 'data.source=text/*.jsonl'

Not run yet. `python -m glm_jax.plan --config configs/chatglm2_6b_h100.py` says on that host what it
takes; there is no topology of GPUs to plan for elsewhere. By arithmetic, parameters and optimizer
in float32 take 8.7 GiB of each GPU.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config, DataConfig, MeshConfig
from glm_jax.config_files import load_config


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("chatglm2_6b_v5e.py"))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat="qkv"),
        data=DataConfig(source="text/*.jsonl", sequence_length=2048, batch_size=64),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
