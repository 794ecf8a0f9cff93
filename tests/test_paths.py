from pathlib import Path

import pytest

from glm_jax import paths
from glm_jax.buckets import BucketPath
from glm_jax.errors import UserError


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert paths.expanded("~/x") == Path("/somewhere/x")
    assert paths.expanded("x/~") == Path("x/~")


def test_the_bundled_model_is_a_word_and_no_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundled").mkdir()
    found = paths.checkpoint("bundled")
    assert found.parts[-3:] == ("glm_jax", "bundled", "model")
    for path in ("./bundled", Path("bundled"), tmp_path / "bundled"):
        assert paths.checkpoint(path).resolve() == tmp_path / "bundled"


def test_the_adapter_of_the_bundled_model_is_a_word_and_no_path():
    found = paths.adapter_directory("bundled:aligned")
    assert found.parts[-3:] == ("glm_jax", "bundled", "aligned")
    assert paths.adapter_directory("./bundled:aligned") == Path("bundled:aligned")
    assert paths.adapter_directory("bundled") == Path("bundled")


def test_the_cache_is_found_in_this_order(monkeypatch):
    for name, value, expected in (
        ("HOME", "/home/me", "/home/me/.cache/glm_jax"),
        ("XDG_CACHE_HOME", "/shared", "/shared/glm_jax"),
        ("GLM_JAX_CACHE", "~/own", "/home/me/own"),
    ):
        if name == "HOME":
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.delenv("GLM_JAX_CACHE", raising=False)
        monkeypatch.setenv(name, value)
        assert paths.cache_directory() == Path(expected)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    """As in a container under a number that the system has no name for."""
    for name in ("HOME", "XDG_CACHE_HOME", "GLM_JAX_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert paths.expanded("~/x") == Path("~/x")
    with pytest.raises(UserError, match=r"no home directory is known.*GLM_JAX_CACHE"):
        paths.cache_directory()


def test_a_bucket_is_one_of_the_paths():
    found = paths.expanded("gs://b/~/run")
    assert (type(found), str(found)) == (BucketPath, "gs://b/~/run")
    assert paths.expanded(found) is found
    assert paths.checkpoint("gs://b/bundled") == BucketPath("gs://b/bundled")


def test_what_must_lie_here_is_refused_elsewhere(monkeypatch):
    assert paths.local("x", "--config") == Path("x")
    with pytest.raises(UserError, match=r"--config takes a path on this machine; got 'gs://b/x'"):
        paths.local("gs://b/x", "--config")
    monkeypatch.setenv("GLM_JAX_CACHE", "gs://b/cache")
    with pytest.raises(UserError, match="GLM_JAX_CACHE takes a path on this machine"):
        paths.cache_directory()
