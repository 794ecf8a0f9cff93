"""How matrices are quantised: `Quantize`, and the rounding of rows [outputs, inputs].

As ChatGLM is published: symmetric, one scale per output, computed in float16.

    scale = max |w| / 127        or / 7 for 4 bits, rounded to float16
    value = round(w / scale)     to float16, then to an integer, halves to the even one

A row of zeros has scale 0 and values 0.
"""

import dataclasses

import numpy as np

from glm_jax.errors import UserError
from glm_jax.json_files import shown

NAMES = {"int8": 8, "int4": 4}
# The scales that `search` tries, as parts of the published one. For normally distributed weights in
# 4 bits the best is near 0.75, for groups of 128 near 0.9.
SHRINK = tuple(1 - step / 40 for step in range(1, 17))


@dataclasses.dataclass(frozen=True)
class Quantize:
    """How the matrices of a model are quantised.

    Attributes:
      bits: 8 or 4.
      group_size: inputs that share a scale; None: all inputs of an output, as published.
      search: take the scale, not above the published one, with the smallest squared error.
      embedding: the token embedding and the LM head too, not only the matrices of the layers.
    """

    bits: int = 8
    group_size: int | None = None
    search: bool = False
    embedding: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or isinstance(self.bits, bool):
            raise UserError(f"bits must be 8 or 4; got {shown(self.bits)}")
        if self.group_size is not None and (
            type(self.group_size) is not int or self.group_size < 2
        ):
            raise UserError(
                f"group_size must be a whole number, at least 2; got {shown(self.group_size)}"
            )

    @property
    def largest(self) -> int:
        """The largest integer: 127 or 7."""
        return 2 ** (self.bits - 1) - 1

    def num_groups(self, name: str, inputs: int) -> int:
        """Groups of the inputs of the matrix `name`.

        Raises:
          UserError: they are not a multiple of `group_size`, or with 4 bits not even.
        """
        size = self.group_size or inputs
        if inputs % size:
            raise UserError(
                f"group_size={size} does not divide the {inputs} inputs of {name}; "
                f"{_divisor(inputs, size)} does, or leave it out: one scale per output"
            )
        if self.bits == 4 and inputs % 2:
            raise UserError(f"{name} has {inputs} inputs; int4 packs two in a byte")
        return inputs // size


def quantize_of(given: "str | Quantize | None") -> Quantize | None:
    """What `quantize=` of `glm_jax.load` says: "int8", "int4", a `Quantize`, or None.

    Raises:
      UserError: anything else.
    """
    if given is None or isinstance(given, Quantize):
        return given
    if not isinstance(given, str) or given not in NAMES:
        raise UserError(
            f"quantize must be 'int8', 'int4' or a glm_jax.Quantize; got {shown(given)}"
        )
    return Quantize(NAMES[given])


def quantised_rows(rows: np.ndarray, groups: int, how: Quantize) -> tuple[np.ndarray, np.ndarray]:
    """Quantises some rows of a matrix.

        [[0.5, -1.0]], 8 bits        values [[64, -127]], scale [[0.007874]]

    Args:
      rows: [outputs, inputs], float32, float16 or bfloat16.
      groups: of the inputs, each with a scale.

    Returns:
      (values, scale): int8 [outputs, inputs] and float16 [outputs, groups].
    """
    # A weight beyond float16 is infinite, as its scale is then; the loader warns of such scales.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        grouped = rows.reshape(len(rows), groups, -1)
        values, scale = (_searched if how.search else _published)(grouped, how.largest)
    return values.reshape(rows.shape), scale


def _published(grouped: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    # A quotient of halves is the one in float32, rounded; numpy computes the latter faster.
    halves = grouped.astype(np.float16).astype(np.float32)
    scale = _published_scale(halves, largest)
    quotient = halves / _divisors(scale)
    return _whole(quotient.astype(np.float16).astype(np.float32), largest), scale


def _searched(grouped: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    weights = grouped.astype(np.float32)
    scale = _published_scale(grouped.astype(np.float16).astype(np.float32), largest)
    full, best = scale.astype(np.float32), _whole(weights / _divisors(scale), largest)
    least = _error(weights, best, scale)
    for part in SHRINK:
        shrunk = _half(full * np.float32(part))
        values = _whole(weights / _divisors(shrunk), largest)
        best, scale, least = _better(weights, (best, scale, least), values, shrunk)
    # Of the chosen integers, the scale with the least squared error.
    whole = best.astype(np.float32)
    squares = np.maximum((whole * whole).sum(-1), 1)
    fitted = _half((whole * weights).sum(-1) / squares)
    best, scale, _ = _better(weights, (best, scale, least), best, fitted)
    return best, scale


def _better(
    weights: np.ndarray,
    known: tuple[np.ndarray, np.ndarray, np.ndarray],
    values: np.ndarray,
    scale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each group the one of two roundings with the smaller error: (values, scale, error)."""
    error = _error(weights, values, scale)
    is_less = error < known[2]
    return (
        np.where(is_less[..., None], values, known[0]),
        np.where(is_less, scale, known[1]),
        np.where(is_less, error, known[2]),
    )


def _error(weights: np.ndarray, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Squared error of each group, [outputs, groups]."""
    off = values * scale.astype(np.float32)[..., None]
    off -= weights
    return np.einsum("ogi,ogi->og", off, off)


def _published_scale(halves: np.ndarray, largest: int) -> np.ndarray:
    return _half(np.abs(halves).max(-1) / np.float32(largest))


def _half(scale: np.ndarray) -> np.ndarray:
    return scale.astype(np.float16)


def _divisors(scale: np.ndarray) -> np.ndarray:
    """Scales to divide by, [outputs, groups, 1]; infinite where they are 0, so that values are."""
    return np.where(scale == 0, np.inf, scale.astype(np.float32))[..., None].astype(np.float32)


def _whole(quotient: np.ndarray, largest: int) -> np.ndarray:
    """To int8; a scale below the smallest of float16 is rounded far down, hence the limit."""
    np.rint(quotient, out=quotient)
    return np.clip(np.nan_to_num(quotient, copy=False), -largest, largest).astype(np.int8)


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is no greater than `limit`."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)
