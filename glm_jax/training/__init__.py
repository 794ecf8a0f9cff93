"""Training: the step, the loop, and the state and checkpoints that they need."""

import glm_jax.checkpoints  # noqa: F401  what it sets for orbax must be set before orbax is imported
