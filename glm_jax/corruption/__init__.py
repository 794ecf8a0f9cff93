"""Autoregressive blank infilling as arrays: what is cut out of a text, and part A and part B.

One text at a time, to be read first: `placing` (where spans go) and `assembly` (part A, part B).

Whole batches, for training: `plan` says what rows are made of, `spans`, `sentences` and `documents`
plan rows of an objective with the counter-based draws of `draws`, `rows` writes the arrays, and
`corruptor` puts them together. `tests/corruption/test_rows.py` holds the two ways equal.
"""

from glm_jax.corruption.assembly import assemble as assemble
from glm_jax.corruption.assembly import assemble_prefix as assemble_prefix
from glm_jax.corruption.placing import place_in_documents as place_in_documents
from glm_jax.corruption.placing import place_spans as place_spans

__all__ = ["assemble", "assemble_prefix", "place_in_documents", "place_spans"]
