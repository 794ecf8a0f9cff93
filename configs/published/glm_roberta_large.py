"""GLM-RoBERTa-Large, 355 M parameters: spans only (THUDM/GLM, the script "blockta").

    python -m glm_jax.train --config configs/published/glm_roberta_large.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

GLM-Base's recipe but for the lines below. The original reads Wikipedia and BookCorpus, CC-News and
OpenWebText with RoBERTa's vocabulary (50,304 rows of the word table), 16 rows a GPU in 8 parts.

Rows are those of this project, 512 places, filled. The published ones, of up to 512 tokens and
two places more for each span, with the quirks of their loader (see `glm_jax.data.published`), come
with `--set objective.published.loader=true --set data.sequence_length=664`.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.models.variants import GLM_ROBERTA_LARGE

CHANGES = [
    "objective.published.task_masks=true",
    "optimizer.schedule=linear",
    "optimizer.warmup_steps=30_000",
    "optimizer.decay_steps=500_000",
    "optimizer.final_ratio=0.025",
    "optimizer.weight_decay=0.01",
    "train.num_steps=500_000",
    "train.accumulation_steps=8",
]


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("glm_base.py"), CHANGES)
    return dataclasses.replace(config, model=GLM_ROBERTA_LARGE)
