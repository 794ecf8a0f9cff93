"""GLM-10B-Chinese made ready for texts of 1024 tokens, half of its rows short (THUDM/GLM).

    python -m glm_jax.train --config configs/published/glm_10b_chinese_longer.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

Goes on from the model that `configs/published/glm_10b_chinese.py` gives: add `--set
train.init_from=DIR`. Corpus and tokenizer as there.

Rows are those of this project, 1024 slots, filled. The published ones, of up to 1024 tokens and
two places more for each span, with the quirks of their loader (see `glm_jax.data.published`), come
with `--set objective.published.loader=true --set data.sequence_length=1330`.
"""

from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.files import load_config

CHANGES = [
    "data.sequence_length=1024",
    "objective.published.short_sequence_rate=0.5",
    "objective.published.row_length=1024",
    "objective.published.micro_batch_rows=8",
    "optimizer.peak_learning_rate=3e-5",
    "optimizer.warmup_steps=500",
    "optimizer.decay_steps=20_000",
]


def get_config() -> Config:
    return load_config(Path(__file__).with_name("glm_10b_chinese.py"), CHANGES)
