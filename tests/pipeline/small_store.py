"""A token store of random ids, and what a config says of it."""

import numpy as np

from glm_jax.data.documents import SPLITS
from glm_jax.data.store import StoreWriter
from glm_jax.tokenizers.tokenizer import load_tokenizer

SIZE = ["data.sequence_length=64", "data.batch_size=4"]


def make_store(directory, special=None, **description):
    tokenizer = load_tokenizer("bundled")
    with StoreWriter(
        directory,
        vocab_size=tokenizer.vocab_size,
        special=special or tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description=description,
    ) as writer:
        draws = np.random.default_rng(0)
        for split in SPLITS:
            writer.add(split, [draws.integers(300, tokenizer.vocab_size, 50) for _ in range(20)])
    return [f"data.store={directory}", *SIZE]
