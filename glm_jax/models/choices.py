"""What a config leaves to the machine."""

import jax

from glm_jax.config.compute import ComputeConfig


def uses_scan(compute: ComputeConfig) -> bool:
    """Whether layers are stacked: `compute.scan_layers`; None: everywhere except on CPU."""
    return jax.default_backend() != "cpu" if compute.scan_layers is None else compute.scan_layers
