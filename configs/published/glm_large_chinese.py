"""GLM-Large-Chinese, 356 M parameters: spans, sentences, documents (THUDM/GLM).

    python -m glm_jax.train --config configs/published/glm_large_chinese.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

GLM-10B's recipe but for the lines below. The original reads WuDao, Baike and Zhihu with a Chinese
sentencepiece model (50,048 rows of the word table), 32 rows a GPU.

Rows are those of this project, 512 places, filled. The published ones, of up to 512 tokens and
two places more for each span, with the quirks of their loader (see `glm_jax.data.published`), come
with `--set objective.published.loader=true --set data.sequence_length=664`.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.models.variants import GLM_LARGE_CHINESE

CHANGES = [
    "objective.span_rate=0.4",
    "objective.sentence_rate=0.3",
    "objective.document_rate=0.3",
    "objective.published.block_mask_id=50010",
    "objective.published.micro_batch_rows=32",
    "optimizer.peak_learning_rate=4e-4",
    "optimizer.warmup_steps=8_000",
    "optimizer.decay_steps=200_000",
    "optimizer.beta2=0.98",
    "optimizer.epsilon=1e-6",
    "optimizer.weight_decay=0.01",
]


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("glm_10b.py"), CHANGES)
    return dataclasses.replace(config, model=GLM_LARGE_CHINESE)
