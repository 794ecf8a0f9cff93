from glm_jax.config import Config
from glm_jax.evaluation.request import Request, is_task_files


def test_directories_and_toml_are_files(tmp_path):
    assert is_task_files(str(tmp_path))
    assert is_task_files("anywhere/reviews.toml")
    assert not is_task_files("last_word")
    assert not is_task_files(str(tmp_path / "none"))


def test_a_request_asks_for_the_default():
    request = Request(Config())
    assert (request.split, request.num_batches, request.num_examples) == (None, None, None)
