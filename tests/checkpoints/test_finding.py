"""What a path that names a model is."""

import pytest

from glm_jax.checkpoints.finding import find_workdir
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
