"""ChatGLM3-6B with GRPO and LoRA (r 16 on every matrix of the layers), on one H100.

    python -m glm_jax.train --config configs/align/chatglm3_6b_grpo_lora.py --workdir DIR \\
        --set train.init_from=chatglm3-6b --set data.tokenizer=chatglm3-6b \\
        --set 'data.source=my/*.jsonl' --set rollouts.reward=my/rewards.py:exact

`my/*.jsonl` are prompts with whatever the reward is told of them (docs/align.md). A step answers 16
prompts 8 times each, 64 answers at once, in up to 1,024 tokens: the caches of these 64 rows and of
8 prompts that wait, of 2,560 slots each, take 72 x 2,560 x 28 layers x 2 x 256 x 2 bytes = 4.9 GiB.

The base lies in bfloat16, is frozen, and is the reference too: no second model is held, but 134 MiB
of adapters as they were. Not run yet. By `python -m glm_jax.plan --topology v5e:2x4` a step takes
3.2 of 15.75 GiB and some 9.3 s on a slice of v5e, 2x4; while answers are decoded a chip holds 1.7
GiB of parameters and moments, 0.6 GiB of caches, and a workspace.
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
    PolicyConfig,
    RolloutsConfig,
    TrainConfig,
)
from glm_jax.models.variants import CHATGLM3_6B


def get_config() -> Config:
    return Config(
        model=dataclasses.replace(CHATGLM3_6B, param_dtype="bfloat16"),
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
        data=DataConfig(source="my/*.jsonl", sequence_length=2048, batch_size=128),
        examples=ExamplesConfig(format="prompts"),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-5,
            warmup_steps=10,
            schedule="constant",
            beta2=0.999,
            epsilon=1e-8,
            weight_decay=0.0,
        ),
        train=TrainConfig(
            num_steps=500,
            loss="grpo",
            stop_above="kl/k2=5, length/answer=1000",
            accumulation_steps=16,
            log_every=1,
            eval_every=50,
            eval_batches=4,
            checkpoint_every=50,
        ),
        mesh=MeshConfig(data=1, fsdp=-1),
        lora=LoraConfig(rank=16, dropout=0.0, targets="all"),
        rollouts=RolloutsConfig(
            group_size=8,
            max_new_tokens=1024,
            slots=64,
            reward="my/rewards.py:exact",
            failed_reward=0.0,
            truncated="mask",
        ),
        policy=PolicyConfig(clip_high=0.28, kl_beta=0.001),
    )
