"""The published loader (THUDM/GLM, March 2023) with its quirks, draw for draw.

It is for parity with the original and for its recipes. In contrast, the rows of
`glm_jax.corruption.corruptor` are full, may differ in objective within a batch, and none is
dropped. `text_rows` picks the text of a row, `crops` cuts short texts out of it, `examples` turns
one text into part A and part B, and `micro_batch` does so for the rows that the original handles in
one call.
"""

from glm_jax.corruption.published.micro_batch import MicroBatch as MicroBatch
from glm_jax.corruption.published.micro_batch import build_micro_batch as build_micro_batch
from glm_jax.corruption.published.micro_batch import collate as collate
from glm_jax.corruption.published.text_rows import TextRow as TextRow
from glm_jax.corruption.published.text_rows import Texts as Texts
from glm_jax.corruption.published.text_rows import text_row as text_row

__all__ = ["MicroBatch", "TextRow", "Texts", "build_micro_batch", "collate", "text_row"]
