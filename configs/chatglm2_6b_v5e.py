"""ChatGLM2-6B, trained on from its checkpoint, on 64 chips of v5e or any other number.

    python -m glm_jax.train --config configs/chatglm2_6b_v5e.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set 'data.source=text/*.jsonl'

Without `train.init_from` the parameters are drawn. On another slice give its rows:
`--set data.batch_size=64` on v5e:4x4 has as many per chip.

    python -m glm_jax.plan --config configs/chatglm2_6b_v5e.py --topology v5e:8x8

says of 64 chips (an estimate of the compiler, nothing ran): peak 5.40 of 15.75 GiB, 2665 ms a step
of 524,288 tokens, 3,074 tokens/s per chip, 100 B tokens in 9,037 chip-hours. Larger batches share
the gathering of the matrices: `--set data.batch_size=1024` gives 3,314 tokens/s per chip (13.88
GiB).

Goodput, assumed and not measured: 98 %. A checkpoint every 22 minutes is 74.9 GB, by 16 hosts at
1 GB/s each 9 s beside training; a stall of 2 s is 0.2 %. An evaluation of 8 batches at a third of a
step, as often, is 0.5 %. One stop a day loses half of 22 minutes, and 5 to come back: 1.1 %.
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
from glm_jax.models.variants import CHATGLM2_6B


def get_config() -> Config:
    return Config(
        model=CHATGLM2_6B,
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
        data=DataConfig(source="text/*.jsonl", sequence_length=2048, batch_size=256),
        objective=ObjectiveConfig(span_rate=0.0, causal_rate=1.0),
        optimizer=OptimizerConfig(
            peak_learning_rate=2e-5,
            warmup_steps=500,
            final_ratio=0.1,
            beta2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=20_000,
            log_every=10,
            eval_every=500,
            eval_batches=8,
            checkpoint_every=500,
        ),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
