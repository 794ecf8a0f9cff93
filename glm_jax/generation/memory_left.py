"""Memory that a device has left, for what is only allocated where there is room."""

from pathlib import Path

import jax

_MEMORY = Path("/proc/meminfo")


def available_bytes(device: jax.Device) -> int | None:
    """Memory that a device has left; None: it does not say."""
    if device.platform == "cpu":
        return _of_this_machine(_MEMORY)
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _of_this_machine(path: Path) -> int | None:
    """What programs can still have, pages of files that can be dropped included."""
    try:
        lines = path.read_text().split("\n")
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
