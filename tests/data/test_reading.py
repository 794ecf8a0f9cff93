"""The one reading of a store's files, at once or in the background."""

import numpy as np
import pytest

from glm_jax.data import reading
from glm_jax.data.reading import content_checksum
from glm_jax.data.store import TokenStore
from glm_jax.errors import UserError
from tests.data.test_store import written


def test_content_checksum(monkeypatch):
    values = np.arange(100, dtype=np.int64)
    whole = content_checksum(values)
    monkeypatch.setattr(reading, "_CHUNK", 24)
    assert content_checksum(values) == whole != content_checksum(values[:-1])


def test_files_that_have_not_changed_are_read_once(tmp_path, monkeypatch):
    directory = written(tmp_path / "store")
    started = []
    begin = reading.Reading._read
    monkeypatch.setattr(
        reading.Reading, "_read", lambda self: (started.append(self.directory), begin(self))
    )
    for _ in range(3):
        TokenStore.open(directory)
    assert started == [directory]
    tokens = directory / "train.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"\x0b\0")
    with pytest.raises(UserError, match="checksum differs"):
        TokenStore.open(directory)
    assert started == [directory] * 2


def test_a_large_store_is_read_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "IN_BACKGROUND", 1)
    directory = written(tmp_path / "store")
    tokens = directory / "train.tokens"
    tokens.write_bytes(b"\x0b\0" * 6)
    held = reading.threading.Event()
    begin = reading.Reading._read
    monkeypatch.setattr(reading.Reading, "_read", lambda self: (held.wait(), begin(self)))
    store = TokenStore.open(directory)
    store.check()  # nothing is known yet
    held.set()
    store.reading.wait()
    with pytest.raises(UserError, match=r"train\.tokens is not what was written"):
        store.check()
