"""GLM-10B, 9.9 B parameters: spans, sentences, documents (THUDM/GLM, `config/ds_block_10B.sh`).

    python -m glm_jax.train --config configs/published/glm_10b.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

The original reads the Pile and CC-News, filtered for English, with GPT-2's vocabulary (50,304 rows
of the word table), 21 rows a GPU. [dBLOCK] has the id that it has there; a tokenizer of more pieces
needs another, above its own. `configs/glm_10b_v5p.py` is a run on 128 chips of v5p, with what it
costs. How many GPUs is not said; the batch of 1024 rows is a choice of ours.

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
from glm_jax.models.variants import GLM_10B


def get_config() -> Config:
    return Config(
        model=GLM_10B,
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
        data=DataConfig(source="text/*.jsonl", sequence_length=512, batch_size=1024),
        objective=ObjectiveConfig(
            span_rate=0.5,
            sentence_rate=0.3,
            document_rate=0.2,
            document_min_ratio=0.25,
            published=PublishedOptions(
                row_length=512,
                micro_batch_rows=21,
                short_sequence_rate=0.02,
                block_mask_rate=0.1,
                block_mask_id=50265,
            ),
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-4,
            schedule="cosine",
            warmup_steps=7_000,
            decay_steps=175_000,
            final_ratio=0.1,
            beta1=0.9,
            beta2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=250_000, eval_every=2_000, eval_batches=16, checkpoint_every=1_000
        ),
    )
