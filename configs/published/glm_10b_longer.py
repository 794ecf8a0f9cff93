"""GLM-10B made ready for texts of 1024 tokens, half of its rows short (THUDM/GLM).

    python -m glm_jax.train --config configs/published/glm_10b_longer.py --workdir DIR \\
        --set 'data.source=text/*.jsonl' --set data.tokenizer=tokenizer.model

Goes on from the model that `configs/published/glm_10b.py` gives: add `--set train.init_from=DIR`.
Corpus and tokenizer as there. In 5 % of the published rows one span is cut out, and 40, 30 and 30 %
of the rest have spans, sentences and documents. The published learning rate goes on falling after
step 50,000 and is negative from about step 55,500 on (`--set optimizer.schedule=linear_published`);
here it stays at its floor.

Rows are those of this project, 1024 places, filled. The published ones, of up to 1024 tokens and
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
    "objective.span_rate=0.43",
    "objective.sentence_rate=0.285",
    "objective.document_rate=0.285",
    "objective.single_span_rate=0.11628",
    "optimizer.peak_learning_rate=3e-5",
    "optimizer.schedule=linear",
    "optimizer.warmup_steps=250",
    "optimizer.decay_steps=50_000",
]


def get_config() -> Config:
    return load_config(Path(__file__).with_name("glm_10b.py"), CHANGES)
