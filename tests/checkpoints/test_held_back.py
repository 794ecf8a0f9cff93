import errno
import logging
import sys
import types

import pytest

from glm_jax.checkpoints.held_back import HeldBack


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


def test_what_is_logged_after_the_failure_was_raised_is_dropped_too(tmp_path, caplog):
    """Each item of a save has its own thread: one fails first, the others log theirs later."""

    def fail():
        with HeldBack(tmp_path / "2"):
            raise OSError("full: params")

    with pytest.raises(OSError, match="full: params"):
        fail()
    for step in (2, 20):
        logging.getLogger("absl").error("cannot write %s.orbax-tmp/optimizer", tmp_path / str(step))
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {tmp_path}/20.orbax-tmp/optimizer"
    ]


def test_an_error_of_the_disk_that_names_no_file(tmp_path, caplog):
    """What Python's `write` raises has no file name: in CI three threads of orbax logged it."""

    def fail():
        with HeldBack(tmp_path / "2"):
            full = OSError(errno.ENOSPC, "No space left on device")
            try:
                raise full
            except OSError as error:
                logging.getLogger("absl").exception("a thread raised an exception: %s", error)
            raise full

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert caplog.records == []


def test_reads_that_outlive_their_event_loop_are_not_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with HeldBack(tmp_path):
        pass
    for message in ("Event loop is closed", "another"):
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(message)))
    assert [str(unraisable.exc_value) for unraisable in said] == ["another"]


def test_what_is_not_raised_is_said_at_the_end(tmp_path, caplog):
    with HeldBack(tmp_path):
        before = len(log_of(tmp_path, caplog))
    assert [record.getMessage() for record in caplog.records[before:]] == ["a task failed"] * 2
    assert len(log_of(tmp_path, caplog)) == before + 2 + 5
