"""Hugging Face checkpoints and tokenizers."""
