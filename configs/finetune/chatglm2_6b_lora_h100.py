"""ChatGLM2-6B with LoRA (r 8, alpha 32, dropout 0.1 on queries, keys and values), on one H100.

    python -m glm_jax.train --config configs/finetune/chatglm2_6b_lora_h100.py --workdir DIR \\
        --set train.init_from=chatglm2-6b --set data.tokenizer=chatglm2-6b \\
        --set 'data.source=my/*.jsonl'

`my/*.jsonl` are conversations in any of the formats of docs/tune_your_chatglm.md, packed into rows;
what is learnt is what ChatGLM2's own fine-tuning code learns.

The base lies in bfloat16 and is frozen; adapters and their moments are float32. What that leaves of
the memory holds the matrix products of a layer, so that the backward pass computes none twice.
`python -m glm_jax.plan --topology h100:1` says (an estimate of the compiler): peak 36.85 of 59.33
GiB, 1,582 ms a step of 32,768 tokens. A checkpoint is the adapters alone, and
`glm_jax.load("chatglm2-6b", adapter=DIR)` the tuned model.
"""

import dataclasses

from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ExamplesConfig,
    LoraConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)
from glm_jax.models.variants import CHATGLM2_6B


def get_config() -> Config:
    return Config(
        model=dataclasses.replace(CHATGLM2_6B, param_dtype="bfloat16"),
        compute=ComputeConfig(dtype="bfloat16", remat="dots"),
        data=DataConfig(source="my/*.jsonl", sequence_length=2048, batch_size=16),
        examples=ExamplesConfig(format="auto"),
        # Steps and rate as in ChatGLM3's finetune_demo.
        optimizer=OptimizerConfig(
            peak_learning_rate=5e-5, warmup_steps=50, beta2=0.999, epsilon=1e-8, weight_decay=0.0
        ),
        train=TrainConfig(num_steps=3000, accumulation_steps=4, eval_every=500, eval_batches=8),
        mesh=MeshConfig(data=1, fsdp=-1),
        lora=LoraConfig(rank=8),
    )
