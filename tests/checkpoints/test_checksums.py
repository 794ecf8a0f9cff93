import errno
import json
import pathlib

import pytest

from glm_jax.checkpoints import checksums
from glm_jax.checkpoints.checksums import (
    MANIFEST,
    damage,
    is_complete,
    read_manifest,
    size_of,
    write_manifest,
    writer_of,
)
from glm_jax.checkpoints.disk import DiskTrouble

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


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"files": [1]}',
        '{"step": 400, "metrics": {}, "files": [1]}',
        '{"step": 400, "metrics": {}, "files": {"a": 3}}',
        '{"step": 400, "metrics": {}, "files": {"a": {"size": "3", "sha256": ""}}}',
        '{"step": "400", "metrics": {}, "files": {}}',
        '{"step": 400, "metrics": {"loss": "low"}, "files": {}}',
        '{"step": 400, "files": {}}',
        "[" * 100_000,
    ],
)
def test_a_manifest_of_other_types_is_none(step, content):
    (step / MANIFEST).write_text(content)
    assert read_manifest(step) is None
    assert "is not a manifest" in damage(step)


def test_a_directory_in_place_of_a_manifest_is_damage(step):
    (step / MANIFEST).unlink()
    (step / MANIFEST).mkdir()
    assert is_complete(step)
    assert "is not a manifest" in damage(step)


def test_sizes_alone(step):
    (step / "params" / "d" / "a").write_bytes(b"abd")
    assert damage(step, read=False) is None
    (step / "params" / "e").write_bytes(b"x")
    assert "has 1 bytes, was saved with 0" in damage(step, read=False)
    assert damage(step, "params/d/a", read=False) is None


@pytest.mark.parametrize("name", ["params/d/a", MANIFEST])
def test_what_the_disk_does_not_give_is_not_damage(step, name, monkeypatch):
    real = pathlib.Path.read_text

    def fail(self, *arguments, **options):
        if self == step / name:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, *arguments, **options)

    def unreadable(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(pathlib.Path, "read_text", fail)
    monkeypatch.setattr(checksums, "_sha256", unreadable)
    with pytest.raises(DiskTrouble, match=rf"{name} cannot be read: (Input|Stale)"):
        damage(step, "params/d/a")


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("params/ocdbt.process_1/d/1f3c", 1),
        ("params/ocdbt.process_0/manifest.ocdbt", 0),
        ("optimizer/array_metadatas/process_1", 1),
        ("params/d/09ae", 0),
        ("_CHECKPOINT_METADATA", 0),
        # Left by a run of more processes: nobody else would hash it.
        ("params/ocdbt.process_7/d/1f3c", 0),
    ],
)
def test_a_file_says_who_wrote_it(name, writer):
    assert writer_of(name, 2) == writer


def test_each_process_hashes_what_it_wrote(tmp_path, monkeypatch):
    step = tmp_path / "7"
    for name in ("params/ocdbt.process_0/d/a", "params/ocdbt.process_1/d/b", "params/d/c"):
        (step / name).parent.mkdir(parents=True, exist_ok=True)
        (step / name).write_bytes(b"abc")
    made = [checksums.checksums(step, index, 2) for index in range(2)]
    assert [list(files) for files in made] == [
        ["params/d/c", "params/ocdbt.process_0/d/a"],
        ["params/ocdbt.process_1/d/b"],
    ]
    assert made[1]["params/ocdbt.process_1/d/b"] == {"size": 3, "sha256": SHA256_ABC}
    # The first one reads nothing again, but a file that nobody has hashed.
    (step / "late").write_bytes(b"abc")
    read, real = [], checksums._sha256
    monkeypatch.setattr(checksums, "_sha256", lambda path: read.append(path.name) or real(path))
    write_manifest(step, {}, made[0] | made[1])
    assert read == ["late"]
    assert len(read_manifest(step)["files"]) == 4
    assert damage(step) is None


def test_processes_share_the_reading_by_bytes(tmp_path):
    step = tmp_path / "7"
    step.mkdir()
    for name, size in (("a", 9), ("b", 5), ("c", 4), ("d", 1)):
        (step / name).write_bytes(bytes(size))
    write_manifest(step, {})
    for name, share in (("a", 0), ("d", 0), ("b", 1), ("c", 1)):
        content = (step / name).read_bytes()
        (step / name).write_bytes(b"x" + content[1:])
        found = [damage(step, share=(index, 2)) for index in range(2)]
        assert found[1 - share] is None
        assert str(step / name) in found[share]
        (step / name).write_bytes(content)
