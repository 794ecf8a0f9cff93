"""What libraries are kept from: jax from a TPU that is not there, orbax's paths from TensorFlow."""

import glob
import importlib.util
import os
import sys
from pathlib import Path

# Device files of TPUs, of NVIDIA GPUs (nvidiactl in containers, dxg in WSL), and of AMD's.
_DEVICES = (
    "/dev/accel*",
    "/dev/vfio/[0-9]*",
    "/dev/nvidia[0-9]*",
    "/dev/nvidiactl",
    "/dev/dxg",
    "/dev/kfd",
)
_VENDORS = "/sys/bus/pci/devices/*/vendor"
_GOOGLE = "0x1ae0"
# Ways to say that there is a TPU all the same.
_SAID = ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT")


def stay_off_absent_tpus() -> None:
    """Sets JAX_PLATFORMS to cpu where libtpu is installed and nothing but a CPU is there.

    libtpu comes with this project, for it plans runs without a TPU (`glm_jax.plan`). Where jax
    finds libtpu it starts it, and libtpu writes five lines of warnings about the TPU it misses, by
    no logger and under no switch: only not starting it is quiet. What is there is never hidden:
    a device file, a TPU on the PCI bus, another plug-in of jax or the user's own word leave jax as
    it is. Takes a millisecond; imports nothing of others.
    """
    if any(name in os.environ for name in _SAID) or not _has("libtpu") or _has("jax_plugins"):
        return
    if any(map(glob.glob, _DEVICES)) or any(map(_is_googles, glob.glob(_VENDORS))):
        return
    if "jax" not in sys.modules:
        os.environ["JAX_PLATFORMS"] = "cpu"
        return
    # It read the variable when it was imported; a platform that was chosen since then stays.
    config = getattr(sys.modules["jax"], "config", None)
    if config is not None and not getattr(config, "jax_platforms", None):
        config.update("jax_platforms", "cpu")


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _is_googles(vendor: str) -> bool:
    try:
        return Path(vendor).read_text(encoding="ascii").strip() == _GOOGLE
    except (OSError, ValueError):
        return False


def keep_paths_from_tensorflow() -> None:
    """Keeps orbax's path library from importing TensorFlow, where that is installed.

    By default it does, for paths in buckets, and takes TensorFlow's files there.
    """
    os.environ.setdefault("EPATH_USE_TF", "false")
    # It remembers what it was told when it was first asked, by jax for its compiled programs, say.
    told = getattr(sys.modules.get("etils.epath.gpath"), "_is_tf_installed", None)
    if told is not None:
        told.cache_clear()
