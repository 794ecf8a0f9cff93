"""Training: objective, optimizer, step, loop, checkpoints."""

import os

# Orbax's paths look for TensorFlow, for gs:// paths, unless told not to; training has none.
os.environ.setdefault("EPATH_USE_TF", "0")
