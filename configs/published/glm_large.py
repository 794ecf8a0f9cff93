"""GLM-Large, 335 M parameters: spans only (THUDM/GLM, `config/ds_block_large.sh`).

    python -m glm_jax.train --config configs/published/glm_large.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

GLM-Base's recipe but for the lines below; bert-large-uncased has the same vocabulary. Corpus and
tokenizer as there. `configs/glm_large_v5e.py` is this on 16 chips of v5e, with what it costs.

Rows are those of this project, 512 places, filled. The published ones, of up to 512 tokens and
two places more for each span, with the quirks of their loader (see `glm_jax.data.published`), come
with `--set objective.published.loader=true --set data.sequence_length=664`.
"""

import dataclasses
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.models.variants import GLM_LARGE

CHANGES = [
    "optimizer.peak_learning_rate=2e-4",
    "optimizer.warmup_steps=8_000",
    "optimizer.decay_steps=160_000",
    "train.num_steps=200_000",
]


def get_config() -> Config:
    config = load_config(Path(__file__).with_name("glm_base.py"), CHANGES)
    return dataclasses.replace(config, model=GLM_LARGE)
