import os

import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.metrics_with_files import MetricsWithFiles, check_output

REPORT = MetricsWithFiles(
    {"loss": 2.0}, {"a.md": "text\n"}, {"b.png": lambda path: path.write_bytes(b"1")}
)


def test_a_report_is_metrics_and_writes_files(tmp_path):
    assert dict(REPORT) == {"loss": 2.0}
    directory = tmp_path / "out"
    REPORT.write(directory)
    (directory / "other").write_text("mine")
    REPORT.write(directory)
    assert {path.name: path.read_text() for path in directory.iterdir()} == {
        "a.md": "text\n",
        "b.png": "1",
        "other": "mine",
    }


def test_a_picture_that_fails_leaves_no_half(tmp_path):
    def fails(path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        MetricsWithFiles({}, {}, {"b.png": fails}).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_no_report_can_be_is_refused(tmp_path, monkeypatch):
    check_output(None, is_directory=True)
    check_output(tmp_path, is_directory=True)
    check_output(tmp_path / "new", is_directory=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file' is a file; a report is written as a directory"):
        check_output(tmp_path / "file", is_directory=True)
    check_output(tmp_path / "file", is_directory=False)
    for is_directory in (False, True):
        with pytest.raises(UserError, match=r"--output: no directory '.*/not'"):
            check_output(tmp_path / "not" / "there", is_directory)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written"):
        check_output(tmp_path / "new", is_directory=True)
