"""Cloze tuning of the bundled model: which of two words fills a blank behind a sentence.

    python examples/cloze.py --steps 0                 writes the sentences to runs/cloze
    python -m glm_jax.train --config configs/finetune/cloze_cpu.py --workdir runs/cloze/run
    python -m glm_jax.evaluate --checkpoint runs/cloze/run --task held_out_cloze

A minute of CPU time; 79 % of the held-out sentences are right before, 86 % after (195 sentences).
The recipe is the published one for SuperGLUE (THUDM/GLM: batch 16, warm-up 0.1, linear), with a
higher rate, 3e-4 for 1e-5, since the model is small and the steps are few.
"""

from glm_jax.config import Config, DataConfig, ExamplesConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(
            source="runs/cloze/sentences.jsonl",
            tokenizer="bundled",
            sequence_length=64,
            batch_size=16,
            eval_fraction=0.25,
        ),
        examples=ExamplesConfig(
            format="cloze",
            pattern="{text} This was in the days of [MASK].",
            verbalizers={"law": "Moses", "gospel": "Jesus"},
            label_field="book",
            # The model reads 64 tokens; a longer sentence loses its end, and not the blank.
            max_source_length=58,
            max_target_length=4,
            packed=False,
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=3e-4, schedule="linear", warmup_steps=4, weight_decay=0.1
        ),
        train=TrainConfig(
            num_steps=40,
            init_from="bundled",
            log_every=10,
            eval_every=0,
            eval_batches=2,
            checkpoint_every=0,
        ),
    )
