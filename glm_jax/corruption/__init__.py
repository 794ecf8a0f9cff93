"""Autoregressive blank infilling as arrays: what is cut out of a text, and part A and part B.

One text at a time, to be read: `place_spans`, `place_in_documents`, `assemble`, `assemble_prefix`.
"""

from glm_jax.corruption.assembly import assemble as assemble
from glm_jax.corruption.assembly import assemble_prefix as assemble_prefix
from glm_jax.corruption.placing import place_in_documents as place_in_documents
from glm_jax.corruption.placing import place_spans as place_spans

__all__ = ["assemble", "assemble_prefix", "place_in_documents", "place_spans"]
