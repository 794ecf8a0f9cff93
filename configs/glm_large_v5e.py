"""GLM-Large, 335 M parameters, from nothing on 16 chips of v5e.

    python -m glm_jax.train --config configs/glm_large_v5e.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

The recipe of THUDM/GLM's `config/ds_block_large.sh`: spans only, 200,000 steps, here of 1024 rows.

    python -m glm_jax.plan --config configs/glm_large_v5e.py --topology v5e:4x4

says of 16 chips (an estimate of the compiler, nothing ran): peak 7.30 of 15.75 GiB, 968 ms a step
of 524,288 tokens, 33,860 tokens/s a chip, 100 B tokens in 820 chip-hours.

Goodput, assumed and not measured: 98 %. A checkpoint every 16 minutes is 4.0 GB, by 4 hosts at
1 GB/s each 2 s beside training; a stall of 1 s is 0.1 %. An evaluation of 16 batches at a third of
a step, half as often, is 0.3 %. One stop a day loses half of 16 minutes, and 5 to return: 0.9 %.
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
from glm_jax.models.variants import GLM_LARGE


def get_config() -> Config:
    return Config(
        model=GLM_LARGE,
        compute=ComputeConfig(dtype="bfloat16", remat="qkv_attention"),
        data=DataConfig(source="text/*.jsonl", sequence_length=512, batch_size=1024),
        objective=ObjectiveConfig(span_rate=1.0),
        optimizer=OptimizerConfig(
            peak_learning_rate=2e-4,
            warmup_steps=8_000,
            decay_steps=160_000,
            final_ratio=0.05,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=200_000,
            accumulation_steps=2,
            log_every=10,
            eval_every=2_000,
            eval_batches=16,
            checkpoint_every=1_000,
        ),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
