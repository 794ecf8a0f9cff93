import errno

import pytest

from glm_jax.checkpoints.disk import disk_trouble, probe, reason

# As tensorstore says it.
TENSORSTORE = ValueError(
    'RESOURCE_EXHAUSTED: Failed writing: "/d/params/d/ab": Failed to write 2657133 bytes to file '
    "17: No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (OSError(errno.EROFS, "x"), "Read-only file system"),
        (TENSORSTORE, "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "x"), None),
        (ValueError("shapes differ"), None),
    ],
)
def test_trouble_and_bugs_are_told_apart(error, said):
    assert disk_trouble(error) == said
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = error
    assert disk_trouble(wrapped) == said


def test_a_probe_leaves_nothing(tmp_path):
    probe(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        probe(tmp_path / "file")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TENSORSTORE, "No space left on device"),
        (OSError(errno.ENOTDIR, "Not a directory"), "Not a directory"),
        (OSError("the mount went away"), "the mount went away"),
        (ValueError("first line\nsecond"), "first line"),
        (KeyError(), "KeyError"),
    ],
)
def test_a_reason_is_never_empty(error, said):
    assert reason(error) == said
