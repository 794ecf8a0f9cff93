"""GLM-Base, 110 M parameters: spans only (THUDM/GLM, `config/ds_block_base.sh`).

    python -m glm_jax.train --config configs/published/glm_base.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

The original reads English Wikipedia and BookCorpus with the vocabulary of bert-base-uncased
(30,592 rows of the word table); give a corpus and a sentencepiece model of up to as many pieces.
The scripts say 16 rows a GPU and not how many GPUs; the batch of 1024 rows is a choice of ours.

Rows are those of this project, 512 places, filled. The published ones, of up to 512 tokens and
two places more for each span, with the quirks of their loader (see `glm_jax.data.published`), come
with `--set objective.published.loader=true --set data.sequence_length=664`.
"""

from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PublishedOptions,
    TrainConfig,
)
from glm_jax.models.variants import GLM_BASE


def get_config() -> Config:
    return Config(
        model=GLM_BASE,
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
        data=DataConfig(source="text/*.jsonl", sequence_length=512, batch_size=1024),
        objective=ObjectiveConfig(
            published=PublishedOptions(row_length=512, micro_batch_rows=16, task_masks=False)
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=4e-4,
            schedule="cosine",
            warmup_steps=6_000,
            decay_steps=120_000,
            final_ratio=0.05,
            beta1=0.9,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=150_000, eval_every=2_000, eval_batches=16, checkpoint_every=1_000
        ),
    )
