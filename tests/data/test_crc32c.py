"""CRC-32C against its published values and a bit-by-bit computation."""

import numpy as np
import pytest

from glm_jax.data.crc32c import crc32c, crc32c_of_windows, masked


def bit_by_bit(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "checksum"),  # RFC 3720, B.4
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data, checksum):
    content = np.frombuffer(b"xyz" + data + b"x", np.uint8)
    assert crc32c(content, np.array([3]), np.array([len(data)])).tolist() == [checksum]


def test_many_stretches_at_once():
    draws = np.random.default_rng(0)
    content = draws.integers(0, 256, 5000, dtype=np.uint8)
    sizes = np.array([0, 1, 2, 3, 63, 64, 65, 127, 128, 129, *draws.integers(0, 3000, 20)])
    starts = draws.integers(0, 2000, len(sizes))
    expected = [
        bit_by_bit(content[a : a + n].tobytes()) for a, n in zip(starts, sizes, strict=True)
    ]
    assert crc32c(content, starts, sizes).tolist() == expected
    assert crc32c(content, starts[:0], sizes[:0]).tolist() == []


def test_more_than_is_laid_out_at_once(monkeypatch):
    content = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8)
    starts, sizes = np.arange(0, 4000, 400), np.full(10, 400)
    whole = crc32c(content, starts, sizes)
    monkeypatch.setattr("glm_jax.data.crc32c._BLOCK", 1000)
    assert crc32c(content, starts, sizes).tolist() == whole.tolist()


def test_windows():
    content = np.random.default_rng(2).integers(0, 256, 40, dtype=np.uint8)
    expected = [bit_by_bit(content[a : a + 8].tobytes()) for a in range(33)]
    assert crc32c_of_windows(content, 8).tolist() == expected


def test_masked():
    # Rotated right by 15, plus a constant.
    assert masked(np.array([0, 1 << 15, 1], np.uint32)).tolist() == [
        0xA282EAD8,
        0xA282EAD9,
        0xA282EAD8 + (1 << 17),
    ]
