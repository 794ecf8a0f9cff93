"""GLM-10B, from nothing on 128 chips of v5p.

    python -m glm_jax.train --config configs/glm_10b_v5p.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

Rates, learning rate, decay and schedule of THUDM/GLM's `config/ds_block_10B.sh`, in rows of 1024
slots; `configs/published/glm_10b.py` has its hidden tokens and short texts too.

    python -m glm_jax.plan --config configs/glm_10b_v5p.py --topology v5p:4x4x8

says of 128 chips (an estimate of the compiler, nothing ran): peak 24.27 of 95.73 GiB, 2043 ms a
step of 1,048,576 tokens, 4,009 tokens/s per chip, 100 B tokens in 6,929 chip-hours.

Goodput, assumed and not measured: 98 %. A checkpoint every 34 minutes is 118.6 GB, by 32 hosts at
1 GB/s each 7 s beside training; a stall of 2 s is 0.1 %. An evaluation every 68 minutes, 8 batches
at a third of a step, is 0.1 %. One stop a day loses half of 34 minutes, and 5 to come back: 1.5 %.
"""

from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)
from glm_jax.models.variants import GLM_10B


def get_config() -> Config:
    return Config(
        model=GLM_10B,
        compute=ComputeConfig(dtype="bfloat16", remat="qkv"),
        data=DataConfig(source="text/*.jsonl", sequence_length=1024, batch_size=1024),
        objective=ObjectiveConfig(
            span_rate=0.5,
            sentence_rate=0.3,
            document_rate=0.2,
            document_min_ratio=0.25,
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-4,
            warmup_steps=7_000,
            decay_steps=175_000,
            final_ratio=0.1,
            beta2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=250_000,
            log_every=10,
            eval_every=2_000,
            eval_batches=8,
            checkpoint_every=1_000,
        ),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
