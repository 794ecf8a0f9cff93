"""What a checkpoint of this project is on disk: its names, checksums and parameters."""

import os

# Orbax's paths look for TensorFlow, for gs:// paths, unless told not to; training has none.
os.environ.setdefault("EPATH_USE_TF", "0")
