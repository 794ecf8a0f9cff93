"""Checkpoints on disk: names, checksums, retention, and parameters alone."""

from glm_jax.platforms import keep_paths_from_tensorflow

keep_paths_from_tensorflow()
