import json

import pytest

from glm_jax.training.checksums import (
    MANIFEST,
    damage,
    is_complete,
    read_manifest,
    size_of,
    write_manifest,
)

# Of the three letters, as every implementation gives it (FIPS 180-2, appendix B.1).
SHA256_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def step(tmp_path):
    directory = tmp_path / "400"
    for name, content in (("params/d/a", b"abc"), ("params/e", b""), ("optimizer/f", b"12345")):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    write_manifest(directory, {"eval/loss": 3.5})
    return directory


def test_the_manifest(step):
    assert size_of(step) == 8
    manifest = read_manifest(step)
    assert manifest["step"] == 400
    assert manifest["metrics"] == {"eval/loss": 3.5}
    assert sorted(manifest["files"]) == ["optimizer/f", "params/d/a", "params/e"]
    assert manifest["files"]["params/d/a"] == {"size": 3, "sha256": SHA256_ABC}
    assert damage(step) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"abd", "checksum differs"), (b"ab", "has 2 bytes, was saved with 3"), (None, "No such")],
)
def test_a_file_that_is_not_what_was_saved_is_named(step, content, said):
    file = step / "params" / "d" / "a"
    file.unlink() if content is None else file.write_bytes(content)
    assert str(file) in damage(step)
    assert said in damage(step)
    assert damage(step, "params") == damage(step)
    assert damage(step, "optimizer") is None


def test_a_manifest_that_is_damaged_itself(step):
    (step / MANIFEST).write_text('{"files"')
    assert "is not a manifest" in damage(step)
    assert is_complete(step)


@pytest.mark.parametrize(("about", "complete"), [({"manifest": True}, False), ({}, True)])
def test_a_step_without_manifest(step, about, complete):
    """Unfinished, unless it was saved by a version that wrote none."""
    (step / MANIFEST).unlink()
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps({"custom_metadata": about}))
    assert is_complete(step) is complete
    assert damage(step) is None
