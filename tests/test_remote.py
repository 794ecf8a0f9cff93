"""Paths that are not on this machine are told from those that are."""

from pathlib import Path

from glm_jax.buckets import BucketPath
from glm_jax.remote import as_path, as_remote, is_remote


def test_which_is_which():
    there = BucketPath("gs://b/run")
    assert is_remote(there)
    assert as_remote(there) is there
    assert as_path(there) is there
    for here in ("gs://b/run", Path("run")):
        assert not is_remote(here)
        assert as_remote(here) is None
        assert as_path(here) == Path(here)
