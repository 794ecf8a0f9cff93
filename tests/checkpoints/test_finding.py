"""What a path that names a model is."""

import pytest

from glm_jax.checkpoints.finding import find_workdir, on_this_machine
from glm_jax.errors import UserError


def test_a_run_a_step_of_it_and_a_hugging_face_directory(tmp_path):
    step = tmp_path / "run" / "checkpoints" / "20"
    step.mkdir(parents=True)
    (tmp_path / "run" / "run.json").touch()
    assert find_workdir(tmp_path / "run") == find_workdir(step) == tmp_path / "run"
    (tmp_path / "config.json").touch()
    assert find_workdir(tmp_path) is None


def test_what_is_neither_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds neither config.json .* nor run.json"):
        find_workdir(tmp_path)
    with pytest.raises(UserError, match=r"no directory .* must be downloaded first"):
        find_workdir(tmp_path / "THUDM" / "chatglm3-6b")


def test_a_model_on_this_machine_is_read_where_it_lies(tmp_path):
    (tmp_path / "config.json").touch()
    assert on_this_machine(tmp_path, None) is tmp_path
    assert on_this_machine(tmp_path / "checkpoints/20", tmp_path) is tmp_path


@pytest.mark.processes
@pytest.mark.parametrize("safe", [True, False])
def test_of_a_directory_in_a_bucket_what_is_needed_is_copied(bucket, tmp_path, monkeypatch, safe):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path))
    weights = ["pytorch_model.bin", *(["model.safetensors"] if safe else [])]
    for name in ("config.json", "tokenizer.model", "original/x.pth", *weights):
        (bucket / "glm" / name).write_bytes(b"1")
    copy = on_this_machine(bucket / "glm", find_workdir(bucket / "glm"))
    assert {file.name for file in copy.rglob("*")} == {
        "config.json",
        "tokenizer.model",
        weights[-1],
    }


@pytest.mark.processes
def test_of_a_run_in_a_bucket_the_small_files_are_copied(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path))
    for name in ("run.json", "data.json", "tokenizer.model", "metrics.jsonl", "checkpoints/2/x"):
        (bucket / "run" / name).write_bytes(b"1")
    workdir = find_workdir(bucket / "run/checkpoints/2")
    assert workdir == bucket / "run"
    copy = on_this_machine(bucket / "run/checkpoints/2", workdir)
    assert {file.name for file in copy.iterdir()} == {"run.json", "data.json", "tokenizer.model"}


@pytest.mark.processes
def test_nothing_in_a_bucket_is_refused(bucket):
    with pytest.raises(UserError, match=r"nothing lies in 'gs://.*/none'"):
        find_workdir(bucket / "none")
    (bucket / "some/file").write_bytes(b"1")
    with pytest.raises(UserError, match=r"'gs://.*/some' holds neither config.json"):
        find_workdir(bucket / "some")
