"""The local twin of a workdir in a bucket: fetched at the start, uploaded where it has changed."""

import pytest

from glm_jax.buckets import BucketPath
from glm_jax.training.run import twin
from glm_jax.training.run.twin import Twin

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_workdir_is_its_own_twin(tmp_path):
    one = Twin(tmp_path)
    assert one.directory is tmp_path
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    one.fetch()
    one.upload()
    one.close()
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


def test_it_begins_with_what_the_bucket_has_and_nothing_else(bucket, cache):
    workdir = bucket / "runs/one"
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n')
    (workdir / "run.json").write_text("{}")
    one = Twin(workdir)
    assert one.directory.is_relative_to(cache)
    assert one.directory.name == "one"
    one.directory.mkdir(parents=True)
    (one.directory / "samples.txt").write_text("step 9 of a start that was killed\n")
    one.fetch()
    assert [file.name for file in one.directory.iterdir()] == ["metrics.jsonl"]
    assert (one.directory / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_what_has_grown_is_uploaded_whole_and_the_rest_is_left(bucket, monkeypatch):
    workdir = bucket / "one"
    one = Twin(workdir)
    one.fetch()
    (one.directory / "samples.txt").write_text("step 2\n")
    (one.directory / "tensorboard").mkdir()
    (one.directory / "tensorboard/events").write_bytes(b"1")
    one.upload()
    with open(one.directory / "samples.txt", "a") as file:
        file.write("step 4\n")
    uploaded, upload = [], BucketPath.upload
    monkeypatch.setattr(
        BucketPath,
        "upload",
        lambda path, source: uploaded.append(path.name) or upload(path, source),
    )
    one.upload()
    one.upload()
    assert uploaded == ["samples.txt"]
    assert (workdir / "samples.txt").read_text() == "step 2\nstep 4\n"
    assert (workdir / "tensorboard/events").read_bytes() == b"1"


def test_two_workdirs_of_one_name_have_two_twins():
    one, other = (Twin(BucketPath(f"gs://b/{name}/run")).directory for name in "ab")
    assert one != other


def test_other_processes_than_the_first_write_nothing(bucket, monkeypatch):
    monkeypatch.setattr(twin, "is_first", lambda: False)
    one = Twin(bucket / "one")
    one.fetch()
    assert not one.directory.exists()
    one.directory.mkdir(parents=True)
    (one.directory / "samples.txt").write_text("step 2\n")
    one.upload()
    assert not (bucket / "one").exists()


def test_a_last_upload_that_fails_says_where_the_files_are(bucket, monkeypatch, caplog):
    one = Twin(bucket / "one")
    one.fetch()
    (one.directory / "samples.txt").write_text("step 2\n")

    def refuse(path, source):
        raise PermissionError(13, "no right", str(path))

    monkeypatch.setattr(BucketPath, "upload", refuse)
    one.close()
    assert f"is not in {bucket / 'one'}: no right; it is in {one.directory}" in caplog.text
