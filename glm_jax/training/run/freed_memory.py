"""What the C library does with freed memory: gives it back, or keeps it for what comes next.

On CPU, XLA takes all that a step works in anew in every step, and glibc gives pieces that large
back to the system at once. So the next step finds pages that are not there, and has the system
make and clear every one:

    step    take 1.2 GB | 300,000 pages are made and cleared | compute | give back, every time
    kept    take 1.2 GB | as they were                       | compute | free     , but the first

docs/decisions/007-cpu-attention.md has what that costs.
"""

import ctypes
import sys
from collections.abc import Callable

# Parameters of mallopt(3), numbered as in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_BY_ITSELF = 0  # as many arenas as glibc finds right

_kept = False


def keep_freed_memory(wanted: Callable[[], bool]) -> bool:
    """Keeps what this process frees for itself, until it ends; returns whether it does.

    The process may then hold as much more as a step works in. Comes before jax has run anything:
    each thread that has taken memory already has an arena of its own, where large pieces are no
    part of, so that there must be one arena for all, the heap, from the start.

    Args:
      wanted: is asked when that is so, and may start jax's threads: whether jax computes on CPU.

    Returns:
      False where it is not wanted, and where the C library is not glibc: on other systems than
      Linux, and on Linux with musl.
    """
    global _kept
    mallopt = _mallopt()
    if mallopt is None or not mallopt(_ARENA_MAX, 1):
        return False
    if not wanted():
        mallopt(_ARENA_MAX, _BY_ITSELF)
        return False
    # No piece is a mapping of its own, however large; and the heap's end stays where it is.
    _kept = bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
    return _kept


def is_kept() -> bool:
    """Whether `keep_freed_memory` was called, and does."""
    return _kept


def _mallopt() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has a mallopt that does nothing, or none, and never this function.
    return libc.mallopt if hasattr(libc, "gnu_get_libc_version") else None
