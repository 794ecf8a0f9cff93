"""ChatGLM3-6B with DPO and LoRA (r 16 on every matrix of the layers), on one H100.

    python -m glm_jax.train --config configs/align/chatglm3_6b_dpo_lora.py --workdir DIR \\
        --set train.init_from=chatglm3-6b --set data.tokenizer=chatglm3-6b \\
        --set 'data.source=my/*.jsonl'

`my/*.jsonl` are pairs in any of the shapes of docs/align.md. A row holds both answers of a pair, so
that data.sequence_length is twice what a prompt and an answer may take. The reference is the model
itself: it is asked once, before the first step, and no second model is held.

The base lies in bfloat16 and is frozen; adapters and their moments are float32. Dropout is off, so
that the policy begins as the reference. `glm_jax.load("chatglm3-6b", adapter=DIR)` is the model.
Not run yet, and not planned.
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
    PreferencesConfig,
    TrainConfig,
)
from glm_jax.models.variants import CHATGLM3_6B


def get_config() -> Config:
    return Config(
        model=dataclasses.replace(CHATGLM3_6B, param_dtype="bfloat16"),
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
        data=DataConfig(source="my/*.jsonl", sequence_length=2048, batch_size=32),
        examples=ExamplesConfig(format="preferences"),
        optimizer=OptimizerConfig(
            peak_learning_rate=5e-6, warmup_steps=50, beta2=0.999, epsilon=1e-8, weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=1000,
            loss="dpo",
            stop_above="kl/k2=20",
            accumulation_steps=8,
            eval_every=200,
            eval_batches=8,
        ),
        mesh=MeshConfig(data=1, fsdp=-1),
        lora=LoraConfig(rank=16, dropout=0.0, targets="all"),
        preferences=PreferencesConfig(beta=0.1),
    )
