"""GLM-10B-Chinese, 9.9 B parameters (THUDM/GLM, the script of GLM-10B for Chinese).

    python -m glm_jax.train --config configs/published/glm_10b_chinese.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

GLM-10B's recipe but for the lines below. The original reads WuDao, Baike and Zhihu with a Chinese
sentencepiece model (50,048 rows of the word table). There [gMASK] and the end of a span share an
id, by accident; here every special token has its own.

Rows are those of this project, 512 places, filled. The published ones, of up to 512 tokens and
two places more for each span, with the quirks of their loader (see `glm_jax.data.published`), come
with `--set objective.published.loader=true --set data.sequence_length=664`.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.models.variants import GLM_10B_CHINESE

CHANGES = [
    "objective.published.block_mask_id=50010",
    "optimizer.warmup_steps=4_800",
    "optimizer.decay_steps=120_000",
    "train.num_steps=150_000",
]


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("glm_10b.py"), CHANGES)
    return dataclasses.replace(config, model=GLM_10B_CHINESE)
