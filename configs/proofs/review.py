"""Full tuning on 2,000 reviews as clozes: {text}甚[MASK]。 ("very ..") with 好 or 差, good or poor.

    python tools/make_reviews.py                  fetches them and writes runs/proofs/data
    python -m glm_jax.train --config configs/proofs/review.py --workdir runs/mine
    python -m glm_jax.evaluate --checkpoint runs/mine --task runs/proofs/data/test.toml

What is tuned is the bundled model, or what `train.init_from` names. `tools/prove_tuning.py` does
all of it, and the same with what this is compared with (docs/proofs.md): `review_scratch.py`,
`review_lora.py`, `review_ptuning.py`, `review_mixed.py`, and pre-trained models of its own.
"""

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        # Of the model that is tuned the shape is kept, and of this section the dropout.
        model=ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0),
        data=DataConfig(
            source="runs/proofs/data/train.jsonl",
            sequence_length=64,
            batch_size=8,
            eval_fraction=0.02,
        ),
        examples=ExamplesConfig(
            format="cloze",
            pattern="{text}甚[MASK]。",
            verbalizers={"good": "好", "bad": "差"},
            max_source_length=60,
            max_target_length=4,
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-3, schedule="linear", warmup_steps=25, weight_decay=0.1
        ),
        train=TrainConfig(
            num_steps=500,
            init_from="bundled",
            log_every=100,
            eval_every=0,
            eval_batches=2,
            checkpoint_every=0,
        ),
    )
