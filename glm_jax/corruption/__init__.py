"""Autoregressive blank infilling as arrays: spans are cut out of a text, which leaves part A and B.

Read the functions for one text first: `placing` (where spans go) and `assembly` (part A, part B).

Training builds many rows at once. `plan` holds the arrays that describe rows. `spans`, `sentences`
and `documents` plan the rows of one objective with the counter-based draws of `glm_jax.draws`.
`rows` writes the arrays of a Batch, and `corruptor` combines all of these.
`tests/corruption/test_rows.py` asserts that both ways give the same arrays.
"""

from glm_jax.corruption.assembly import AssemblyOptions as AssemblyOptions
from glm_jax.corruption.assembly import assemble as assemble
from glm_jax.corruption.assembly import assemble_prefix as assemble_prefix
from glm_jax.corruption.placing import place_in_documents as place_in_documents
from glm_jax.corruption.placing import place_spans as place_spans

__all__ = ["AssemblyOptions", "assemble", "assemble_prefix", "place_in_documents", "place_spans"]
