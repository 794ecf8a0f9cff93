"""Whether the GPU here can run a kernel that is written for NVIDIA's."""

import jax

from glm_jax.attention.platform import refuses_many_devices, target_platform


def compute_capability() -> float | None:
    """9.0 for Hopper, 8.0 for Ampere; None if the first local device is not an NVIDIA GPU."""
    said = getattr(jax.local_devices()[0], "compute_capability", None)
    try:
        return float(said)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def refuses_device() -> str | None:
    """Why no GPU kernel can be used here, whatever the call."""
    platform = target_platform()
    if platform not in ("gpu", "cuda"):
        return f"needs an NVIDIA GPU; this is for {platform}"
    return refuses_many_devices()
