import logging

import pytest

from glm_jax.training.held_back import HeldBack


def log_of(directory, caplog):
    for name in ("absl", "asyncio"):
        try:
            raise ValueError(f"cannot read {directory}/params")
        except ValueError:
            logging.getLogger(name).exception("a task failed")
        logging.getLogger(name).warning("something else")
    logging.getLogger("glm_jax").warning("of %s", directory)
    return [record.getMessage() for record in caplog.records]


def test_what_is_raised_is_not_logged_too(tmp_path, caplog):
    def fail():
        with HeldBack(tmp_path):
            said.extend(log_of(tmp_path, caplog))
            raise OSError("full")

    said = []
    with pytest.raises(OSError, match="full"):
        fail()
    assert said == ["something else", "something else", f"of {tmp_path}"]
    assert [record.getMessage() for record in caplog.records] == said


def test_what_is_not_raised_is_said_at_the_end(tmp_path, caplog):
    with HeldBack(tmp_path):
        before = len(log_of(tmp_path, caplog))
    assert [record.getMessage() for record in caplog.records[before:]] == ["a task failed"] * 2
    assert len(log_of(tmp_path, caplog)) == before + 2 + 5
