import pytest

from glm_jax.config import Config, DataConfig, to_json
from glm_jax.errors import UserError
from glm_jax.evaluation.request import Request, config_for, is_task_files, own_workdir


def test_directories_and_toml_are_files(tmp_path):
    assert is_task_files(str(tmp_path))
    assert is_task_files("anywhere/reviews.toml")
    assert not is_task_files("last_word")
    assert not is_task_files(str(tmp_path / "none"))


def test_a_request_asks_for_the_default():
    request = Request(Config())
    assert (request.split, request.num_batches, request.num_examples) == (None, None, None)


def test_the_config_is_that_of_the_run_with_what_is_set(tmp_path):
    model = tmp_path / "of_hugging_face"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert config_for(model, None, ["data.batch_size=3"]).data == DataConfig(batch_size=3)
    (tmp_path / "run.json").write_text(to_json(Config(data=DataConfig(sequence_length=48))))
    (tmp_path / "checkpoints").mkdir()
    assert config_for(tmp_path, None, []).data.sequence_length == 48
    with pytest.raises(UserError, match="num_layers=4: the model of --checkpoint"):
        config_for(tmp_path, None, ["model.num_layers=4"])


def test_data_that_is_set_is_not_that_of_the_run(tmp_path):
    (tmp_path / "run.json").write_text(to_json(Config()))
    (tmp_path / "checkpoints").mkdir()
    assert own_workdir(tmp_path, None, ["train.seed=3"]) == tmp_path
    assert own_workdir(tmp_path, None, ["data.source=x"]) is None
    assert own_workdir(tmp_path, tmp_path / "config.py", []) is None
