"""Checkpoints on disk: names, checksums, retention, and parameters alone."""

import os

# By default orbax's path library imports TensorFlow, for gs:// paths; training does not have it.
os.environ.setdefault("EPATH_USE_TF", "0")
