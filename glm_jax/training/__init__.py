"""Training: the step, the loop and what they stand on."""

import glm_jax.checkpoints  # noqa: F401  what it sets for orbax must be set before orbax is imported
