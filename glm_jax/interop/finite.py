"""Warns about non-finite weights: names the tensors that hold NaN or an infinity.

The test compares bits, since numpy is slow to compare 16-bit floats:

    bfloat16   s eeeeeeee mmmmmmm       all of e set: infinite, or NaN if m is not 0
                 11111111 0000000       so without the sign the bits are at least these
"""

import logging

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from glm_jax.json_files import some

_LOG = logging.getLogger(__name__)
# dtype -> the integer type of its bits, the mask of all bits but the sign, the bits of infinity.
_BITS = {
    np.dtype(np.float32): (np.uint32, 0x7FFFFFFF, 0x7F800000),
    np.dtype(np.float16): (np.uint16, 0x7FFF, 0x7C00),
    np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7FFF, 0x7F80),
}
# Elements tested together, few enough to stay in the cache.
_BLOCK = 2**18


class Unusable:
    """Collects the names of tensors that are not finite, in the order they were looked at."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def look_at(self, name: str, tensor: np.ndarray) -> None:
        """Collects the name of a tensor if it is not finite.

        Args:
          name: of the tensor.
          tensor: float32, float16, bfloat16 or integers, of any shape and strides.
        """
        if name not in self._names and not is_finite(tensor):
            self._names.append(name)

    def look_at_leaf(self, name: str, leaf: jax.Array) -> None:
        """`look_at` for a jax array, tested on its own devices."""
        if _is_on_host(leaf):
            self.look_at(name, np.asarray(leaf))
        elif not jnp.isfinite(leaf).all():
            self._names.append(name)

    def warn(self, where: str) -> None:
        """Logs the names in one line, if there are any."""
        if self._names:
            _LOG.warning("NaN or infinite values in %s: %s", where, some(self._names))


def _is_on_host(leaf: jax.Array) -> bool:
    """Whether numpy can read an array without a copy into the memory of this process."""
    on_cpu = {device.platform for device in leaf.devices()} == {"cpu"}
    return on_cpu and leaf.is_fully_addressable


def is_finite(tensor: np.ndarray) -> bool:
    """Whether a tensor holds neither NaN nor infinities; integers never do."""
    if tensor.dtype not in _BITS:
        return True
    kind, magnitude, infinity = _BITS[tensor.dtype]
    # The order of elements does not matter; that of the file needs no copy.
    flat = tensor.ravel(order="K").view(kind)
    buffer = np.empty(min(_BLOCK, flat.size), kind)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if np.bitwise_and(block, magnitude, out=buffer[: block.size]).max() >= infinity:
            return False
    return True
