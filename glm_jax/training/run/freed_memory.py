"""Makes the C library keep freed memory for the next step instead of returning it to the system.

On CPU, XLA allocates the temporaries of a step anew in every step, and glibc returns blocks of that
size to the system as soon as they are freed. Every step then faults in new, zeroed pages:

    default    allocate 1.2 GB | 300,000 page faults             | compute | return to the system
    kept       allocate 1.2 GB | no page fault after the 1st step | compute | free

docs/decisions/007-cpu-attention.md has the measured cost.
"""

import ctypes
import sys
from collections.abc import Callable

from glm_jax.errors import UserError

# Parameters of mallopt(3), numbered as in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_BY_ITSELF = 0  # glibc chooses the number of arenas

_kept = False


def keep_freed_memory(wanted: Callable[[], bool]) -> bool:
    """Makes this process keep the memory that it frees, until it ends.

    The process may then hold more memory, by the temporaries of a step. This must be called before
    jax runs anything. A thread that has allocated memory has an arena of its own, which cannot
    hold large blocks; all threads must share one arena, the heap, from the start.

    Args:
      wanted: says whether to keep memory, for instance whether jax computes on CPU. It is called
        once there is a single arena, and may start jax's threads.

    Returns:
      Whether memory is kept: False if `wanted` says no, or if the C library is not glibc (other
      systems than Linux, and Linux with musl).
    """
    global _kept
    mallopt = _mallopt()
    if mallopt is None or not mallopt(_ARENA_MAX, 1):
        return False
    if not wanted():
        mallopt(_ARENA_MAX, _BY_ITSELF)
        return False
    # No block gets a mapping of its own, however large, and the heap never shrinks.
    _kept = bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
    return _kept


def keep_memory(asked: bool | None) -> None:
    """Applies `train.keep_freed_memory`; to be called before jax touches a device.

    Args:
      asked: value of the option; None: keep memory if jax computes on CPU.

    Raises:
      UserError: it is True, but the C library cannot keep memory.
    """
    if asked is False:
        return

    def wanted() -> bool:
        import jax

        return bool(asked) or jax.default_backend() == "cpu"

    if not keep_freed_memory(wanted) and asked:
        raise UserError(
            "train.keep_freed_memory=True needs Linux with glibc; leave it out, or set it to False"
        )


def is_kept() -> bool:
    """Whether `keep_freed_memory` was called and took effect."""
    return _kept


def _mallopt() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has a mallopt that does nothing, or none, and never this function.
    return libc.mallopt if hasattr(libc, "gnu_get_libc_version") else None
