"""A small causal model and one that fills blanks, as in tests/generation."""

from tests.generation.conftest import cases, causal_lm, compiled, golden_directory, lm

__all__ = ["cases", "causal_lm", "compiled", "golden_directory", "lm"]
