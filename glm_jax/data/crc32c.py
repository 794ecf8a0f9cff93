"""CRC-32C (Castagnoli) of many byte ranges at once, in numpy.

A checksum is a linear function of the bytes, and leading zeros do not change it. So every range is
laid out in rows of `_ROW` bytes, with zeros filled in at its front. All rows go through the table
together, two bytes per step; each result is then moved over the rows that follow it:

    "the night was good"    0 0 0 0 t h e . n i    row 0 -> crc, moved over one row of bytes \\
                            g h t . w a s . g o .. row 1 -> crc                               XOR
"""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78
_ROW = 64  # bytes; even
# Bytes laid out at once: rows times their width stays in a CPU's cache.
_BLOCK = 1 << 21
_MASK_DELTA = 0xA282EAD8


def crc32c(content: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The checksums of byte ranges.

        crc32c(np.frombuffer(b"123456789", np.uint8), [0], [9]) -> [0xE3069283]

    Args:
      content: uint8.
      starts, sizes: [n] first byte and number of bytes of each range.

    Returns:
      [n] uint32.
    """
    starts, sizes = np.asarray(starts, np.int64), np.asarray(sizes, np.int64)
    answer = np.empty(len(starts), np.uint32)
    first = 0
    ends = np.cumsum(sizes + _ROW)
    while first < len(starts):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        answer[first:last] = _together(content, starts[first:last], sizes[first:last])
        first = last
    return answer


def crc32c_of_windows(content: np.ndarray, width: int) -> np.ndarray:
    """The checksums of all windows of a width, one at each byte.

    Args:
      content: uint8 [n], n >= width.
      width: bytes, even.

    Returns:
      [n - width + 1] uint32.
    """
    windows = np.lib.stride_tricks.sliding_window_view(content, width)
    words = np.ascontiguousarray(windows).view("<u2")
    return ~(_of_rows(words) ^ _of_ones(np.array([width])))


def masked(crc: np.ndarray) -> np.ndarray:
    """The checksum as TFRecords hold it: masked, as the data may itself contain checksums."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)


def _together(content: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    rows = np.maximum(1, -(-sizes // _ROW))
    begins = np.cumsum(rows) - rows  # of each range, in rows
    laid = np.zeros(int(rows.sum()) * _ROW, np.uint8)
    for start, size, end in zip(
        starts.tolist(), sizes.tolist(), ((begins + rows) * _ROW).tolist(), strict=True
    ):
        laid[end - size : end] = content[start : start + size]
    crc = _of_rows(laid.view("<u2").reshape(-1, _ROW // 2))
    # Each checksum is moved over the rows that follow in its range, by powers of two.
    behind = np.repeat(rows, rows) - 1 - (np.arange(len(crc)) - np.repeat(begins, rows))
    for power in range(int(behind.max()).bit_length()):
        moved = (behind >> power) & 1 == 1
        crc[moved] = _moved(crc[moved], _ROW << power)
    crc = np.bitwise_xor.reduceat(crc, begins)
    # The register starts with ones, which are moved over the whole range.
    return ~(crc ^ _of_ones(sizes))


def _of_rows(words: np.ndarray) -> np.ndarray:
    """[n, words] little-endian uint16 -> [n] uint32, from a register of zeros."""
    table = _table()
    crc = np.zeros(len(words), np.uint32)
    for word in np.ascontiguousarray(words.T):
        crc = table[(crc ^ word) & np.uint32(0xFFFF)] ^ (crc >> np.uint32(16))
    return crc


def _of_ones(sizes: np.ndarray) -> np.ndarray:
    """[n] a register of ones after `sizes` zero bytes."""
    crc = np.full(len(sizes), 0xFFFFFFFF, np.uint32)
    for power in range(int(sizes.max(initial=0)).bit_length()):
        moved = (sizes >> power) & 1 == 1
        crc[moved] = _moved(crc[moved], 1 << power)
    return crc


def _moved(crc: np.ndarray, zeros: int) -> np.ndarray:
    """Registers after `zeros` more zero bytes."""
    tables = _moving(zeros)
    return (
        tables[0][crc & 0xFF]
        ^ tables[1][(crc >> np.uint32(8)) & 0xFF]
        ^ tables[2][(crc >> np.uint32(16)) & 0xFF]
        ^ tables[3][crc >> np.uint32(24)]
    )


@functools.cache
def _table() -> np.ndarray:
    """[65536] the register after two bytes, indexed by its low half XOR these bytes."""
    crc = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        crc = (crc >> np.uint32(1)) ^ np.where(crc & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return crc


@functools.cache
def _moving(zeros: int) -> np.ndarray:
    """[4, 256] what each value of each byte of the register becomes after `zeros` = 2^k bytes."""
    indices = np.arange(4, dtype=np.uint32)[:, None]
    registers = np.arange(256, dtype=np.uint32) << np.uint32(8) * indices
    if zeros == 1:
        low = registers & np.uint32(0xFF)
        one = _table()[low << np.uint32(8)]  # a byte in the upper half of a word: moved by one
        return one ^ (registers >> np.uint32(8))
    return _moved(_moved(registers, zeros // 2), zeros // 2)
