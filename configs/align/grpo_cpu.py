"""GRPO of a small model on questions whose answers can be checked: minutes on two cores.

    python examples/grpo.py --write runs/align/counting
    python -m glm_jax.train --config configs/align/guesser_cpu.py --workdir runs/guesser
    python -m glm_jax.train --config configs/align/grpo_cpu.py --workdir runs/counter

One answer in ten is right at first. Another model, and questions and a reward of your own:

    ... --set train.init_from=DIR --set data.tokenizer=DIR --set data.source='my/*.jsonl' \
        --set rollouts.reward=my/rewards.py:exact

(docs/align.md)
"""

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    PolicyConfig,
    RolloutsConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        # The run has the shape of the checkpoint. The policy is compared with itself, so without
        # dropout.
        model=ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0),
        data=DataConfig(
            source="runs/align/counting/prompts.jsonl",
            sequence_length=24,
            batch_size=400,  # all 25 prompts of the training split in each step
            eval_fraction=0.15,
        ),
        examples=ExamplesConfig(format="prompts"),
        optimizer=OptimizerConfig(
            peak_learning_rate=7e-4, warmup_steps=5, schedule="constant", weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=250,
            init_from="runs/guesser",
            loss="grpo",
            # From one of ten words at random to the right one are 2.3 nats.
            stop_above="kl/k1=5",
            log_every=10,
            eval_every=50,
            eval_batches=1,
            sample_every=250,
            checkpoint_every=50,
        ),
        rollouts=RolloutsConfig(
            group_size=16,
            max_new_tokens=5,  # "zero" is three ids, and the end
            reward="examples/counting/rewards.py:exact",
            truncated="zero",
        ),
        # Without it the policy soon says one word to every question, and no other is drawn again.
        policy=PolicyConfig(kl_beta=0.2, kl_by_ratio=True),
    )
