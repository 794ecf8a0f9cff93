import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from glm_jax import files
from glm_jax.buckets import BucketPath
from glm_jax.errors import UserError
from glm_jax.files import new_directory, replaced_directory, write_whole, written

DEAD = 2**22 + 1  # above the largest process id of Linux


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def write(path, text, may_replace=lambda path: True):
    with replaced_directory(path, may_replace) as directory:
        (directory / "file").write_text(text)


def fail(path):
    with pytest.raises(OSError, match="full"), replaced_directory(path, lambda path: True):
        raise OSError("disk full")


def left_over(path, kind, pid=DEAD, host=None):
    sibling = path.parent / f".{path.name}.{kind}-{host or socket.gethostname()}-{pid}"
    sibling.mkdir()
    (sibling / "file").write_text(kind)
    return sibling


def test_a_file_appears_whole(tmp_path):
    write_whole(tmp_path / "a", b"1")
    with written(tmp_path / "a") as temporary:
        temporary.write_text("2")
        assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "a").read_text() == "2"
    assert names(tmp_path) == ["a"]


def test_a_file_that_cannot_be_written_stays(tmp_path):
    write_whole(tmp_path / "a.npz", "1")

    def write_half():
        with written(tmp_path / "a.npz") as temporary:
            assert temporary.suffix == ".npz"
            temporary.write_text("2")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert (tmp_path / "a.npz").read_text() == "1"
    assert names(tmp_path) == ["a.npz"]


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    write_whole("/dev/null", "text")
    assert names(tmp_path) == ["pipe"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "b", "old")
    write_whole(tmp_path / "disk" / "a", "old")
    for name in "ab":
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    write_whole(tmp_path / "a", "new")
    write(tmp_path / "b", "new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b").is_symlink()
    assert (tmp_path / "disk" / "a").read_text() == "new"
    assert (tmp_path / "disk" / "b" / "file").read_text() == "new"
    assert names(tmp_path / "disk") == ["a", "b"]


def test_a_directory_appears_whole(tmp_path):
    with replaced_directory(tmp_path / "a" / "b", lambda path: False) as directory:
        assert not (tmp_path / "a" / "b").exists()
        (directory / "file").write_text("x")
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"
    assert names(tmp_path / "a") == ["b"]


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path / "b", "old")
    fail(tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "old"
    assert names(tmp_path) == ["b"]


def test_a_failing_rename_leaves_what_was_there(tmp_path, monkeypatch):
    write(tmp_path / "b", "old")
    rename = Path.rename

    def refuse(self, target):
        if ".new-" in self.name:
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        write(tmp_path / "b", "new")
    assert (tmp_path / "b" / "file").read_text() == "old"
    assert names(tmp_path) == ["b"]


def test_what_may_not_be_replaced_stays(tmp_path):
    write(tmp_path / "b", "old")
    with pytest.raises(UserError, match="holds more than a model"):
        write(tmp_path / "b", "new", lambda path: False)
    (tmp_path / "c").write_text("a file")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "c", "new")
    assert (tmp_path / "b" / "file").read_text() == "old"
    assert names(tmp_path) == ["b", "c"]


def test_left_overs_of_killed_processes_are_removed(tmp_path):
    left_over(tmp_path / "b", "new")
    left_over(tmp_path / "b", "old")
    write(tmp_path / "b", "x")
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b" / "file").read_text() == "x"


def test_left_overs_of_others_stay(tmp_path):
    mine = left_over(tmp_path / "c", "new")
    running = left_over(tmp_path / "b", "new", pid=os.getppid())
    elsewhere = left_over(tmp_path / "b", "new", host="elsewhere")
    write(tmp_path / "b", "x")
    assert names(tmp_path) == sorted(["b", mine.name, running.name, elsewhere.name])


def test_what_a_kill_between_two_renames_hid_comes_back(tmp_path):
    left_over(tmp_path / "b", "old")
    left_over(tmp_path / "b", "new")
    fail(tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "old"
    assert names(tmp_path) == ["b"]


def test_what_was_half_removed_never_comes_back(tmp_path):
    """Killed while it removed the old directory, which then stands without a new one."""
    left_over(tmp_path / "b", "old")
    fail(tmp_path / "b")
    assert names(tmp_path) == []


@pytest.mark.parametrize("when", ["between the renames", "in the removal"])
def test_a_kill_while_it_is_replaced(tmp_path, when):
    write(tmp_path / "b", "old")
    (tmp_path / "b" / "other").write_text("old")
    code = f"""
import os, pathlib, shutil
from glm_jax.files import replaced_directory
def rename(self, target, real=pathlib.Path.rename):
    real(self, target)
    if {when!r} == "between the renames":
        os.kill(os.getpid(), 9)
def rmtree(path, **options):
    if ".old-" in str(path):
        os.unlink(os.path.join(path, "other"))
        os.kill(os.getpid(), 9)
pathlib.Path.rename, shutil.rmtree = rename, rmtree
with replaced_directory(pathlib.Path({str(tmp_path / "b")!r}), lambda path: True) as directory:
    (directory / "file").write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    if when == "in the removal":
        # The user removes the new one. What is half there must not take its place.
        assert (tmp_path / "b" / "file").read_text() == "new"
        shutil.rmtree(tmp_path / "b")
        fail(tmp_path / "b")
        assert names(tmp_path) == []
    else:
        fail(tmp_path / "b")
        assert names(tmp_path) == ["b"]
        assert names(tmp_path / "b") == ["file", "other"]


def test_all_of_a_directory_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = [], files.sync

    def sync(path):
        synced.append((path.name, (tmp_path / "b").exists()))
        real(path)

    monkeypatch.setattr(files, "sync", sync)
    with replaced_directory(tmp_path / "b", lambda path: True) as directory:
        (directory / "deep").mkdir()
        (directory / "deep" / "file").write_text("x")
    name = directory.name
    assert synced == [("file", False), ("deep", False), (name, False), (tmp_path.name, True)]


def test_the_directory_one_is_in_stays(tmp_path, monkeypatch):
    (tmp_path / "b" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "b")
    for path in (Path(), Path("."), tmp_path / "b", Path("in", "..")):
        with pytest.raises(UserError, match="is the directory you are in"):
            write(path, "new")
    monkeypatch.chdir(tmp_path / "b" / "in")
    with pytest.raises(UserError, match="is the directory you are in"):
        write(tmp_path / "b", "new")
    write(tmp_path / "b" / "out", "new")
    assert names(tmp_path / "b") == ["in", "out"]


def test_below_a_file_there_is_no_directory(tmp_path):
    (tmp_path / "c").write_text("a file")
    with pytest.raises(UserError, match=r"c' is a file"):
        write(tmp_path / "c" / "d" / "e", "new")


def test_a_kill_leaves_nothing_under_the_name(tmp_path):
    code = (
        "import os, pathlib\n"
        "from glm_jax.files import replaced_directory\n"
        f"with replaced_directory(pathlib.Path({str(tmp_path / 'b')!r}), bool) as directory:\n"
        "    (directory / 'file').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "b").exists()
    write(tmp_path / "b", "x")
    assert names(tmp_path) == ["b"]


def make(path, text):
    with new_directory(path, lambda path: (path / "file").is_file()) as directory:
        assert not (path / "file").exists()
        (directory / "file").write_text(text)
        meanwhile = path.parent / "meanwhile"
        if meanwhile.exists():
            meanwhile.rename(path)


def test_a_new_directory_appears_whole_and_is_readable_by_all(tmp_path):
    make(tmp_path / "a" / "b", "x")
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755
    assert names(tmp_path / "a") == ["b"]


def test_a_new_directory_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="full"), new_directory(tmp_path / "b", bool):
        raise OSError("disk full")
    assert names(tmp_path) == []


def test_a_new_directory_gives_way_to_the_same_of_another_process(tmp_path):
    (tmp_path / "meanwhile").mkdir()
    (tmp_path / "meanwhile" / "file").write_text("theirs")
    make(tmp_path / "b", "ours")
    assert (tmp_path / "b" / "file").read_text() == "theirs"
    assert names(tmp_path) == ["b"]


def test_a_new_directory_does_not_replace_something_else(tmp_path):
    (tmp_path / "meanwhile").mkdir()
    (tmp_path / "meanwhile" / "other").write_text("theirs")
    with pytest.raises(OSError, match="not empty"):
        make(tmp_path / "b", "ours")
    assert names(tmp_path) == ["b"]
    assert names(tmp_path / "b") == ["other"]


def test_names_below_and_what_is_there(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").touch()
    (tmp_path / "a/link").symlink_to("nowhere")
    assert files.names_below(tmp_path / "a") == ["b/x"]
    assert files.there(tmp_path / "a/link")
    assert not files.there(tmp_path / "b")
    files.remove_tree(tmp_path / "a")
    files.remove_tree(tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.processes
def test_the_same_in_a_bucket(bucket):
    write_whole(bucket / "a/b/x", "text")
    assert files.names_below(bucket / "a") == ["b/x"]
    assert files.there(bucket / "a/b/x")
    assert not files.there(bucket / "a/b/y")
    files.remove_tree(bucket / "a")
    assert not files.there(bucket / "a")


@pytest.mark.processes
def test_a_directory_in_a_bucket_is_no_model_until_it_is_whole(bucket, monkeypatch):
    path = bucket / "models/one"
    for name in ("config.json", "model.safetensors", "old"):
        (path / name).write_text("before")
    calls = []
    for name in ("upload", "unlink"):
        monkeypatch.setattr(BucketPath, name, noted(name, getattr(BucketPath, name), calls))
    with replaced_directory(path, lambda path: True) as directory:
        (directory / "config.json").write_text("after")
        (directory / "model.safetensors").write_text("after")
        assert (path / "config.json").read_text() == "before"
    assert calls == [
        ("unlink", "config.json"),
        ("unlink", "old"),
        ("upload", "model.safetensors"),
        ("upload", "config.json"),
    ]
    assert {name: (path / name).read_text() for name in files.names_below(path)} == {
        "config.json": "after",
        "model.safetensors": "after",
    }


def noted(name, method, calls):
    def note(path, *others, **options):
        calls.append((name, path.name))
        return method(path, *others, **options)

    return note


@pytest.mark.processes
def test_nothing_is_written_in_a_bucket_where_something_else_lies(bucket):
    (bucket / "models/one/thesis.tex").write_text("years")
    with pytest.raises(UserError, match=r"'gs://.*/models/one' is not empty and holds more"):
        write(bucket / "models/one", "x", lambda path: False)
    with pytest.raises(UserError, match=r"thesis.tex' is a file; a model is saved as a directory"):
        write(bucket / "models/one/thesis.tex", "x")
    with pytest.raises(ZeroDivisionError), replaced_directory(bucket / "two", lambda path: True):
        raise ZeroDivisionError
    assert not (bucket / "two").exists()
