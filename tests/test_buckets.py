"""Paths in a bucket: what they do as pathlib's do, what they refuse, and how errors read."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from glm_jax import buckets
from glm_jax.buckets import BucketPath, as_os_errors, is_url, os_error
from glm_jax.errors import UserError
from tests.bucket_server import led_to, refusing

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("gs://b/a", True),
        ("s3://b/a", True),
        (Path("gs://b/a"), True),
        (BucketPath("gs://b"), True),
        ("runs/gs", False),
        ("C:/runs", False),
        ("task:glm_pretrain", False),
        (Path("/tmp"), False),
    ],
)
def test_urls_are_told_from_paths(path, url):
    assert is_url(path) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://b/a", "only gs:// is read and written"),
        ("gs://", "names no bucket"),
        ("gs:///", "names no bucket"),
        ("gs:/b/a", "was a URL before it was a Path; give it as a str"),
    ],
)
def test_what_is_no_path_in_a_bucket_is_refused(url, said):
    with pytest.raises(UserError, match=said):
        BucketPath(url)


def test_names_and_parents_are_those_of_pathlib():
    path = BucketPath("gs://b/runs/one.tar/") / "x/loss.png"
    pure = Path("/b/runs/one.tar/x/loss.png")
    assert str(path) == f"gs:/{pure}"
    assert (path.name, path.stem, path.suffix) == (pure.name, pure.stem, pure.suffix)
    assert (path.bucket, path.key) == ("b", "runs/one.tar/x/loss.png")
    assert str(path.with_name("y")) == "gs://b/runs/one.tar/x/y"
    assert path.parent == BucketPath("gs://b/runs/one.tar/x")
    assert list(map(str, path.parents)) == [
        *("gs://b/runs/one.tar/x", "gs://b/runs/one.tar", "gs://b/runs", "gs://b")
    ]
    assert BucketPath("gs://b").parent == BucketPath("gs://b")
    assert path.is_relative_to(BucketPath("gs://b/runs"))
    assert not path.is_relative_to(BucketPath("gs://b/run"))
    assert path.absolute() == path
    assert len({path, BucketPath(str(path))}) == 1


def test_nothing_takes_it_for_a_path_of_this_machine():
    path = BucketPath("gs://b/a")
    for use in (Path, open):
        with pytest.raises(TypeError):
            use(path)


def test_content_comes_back(bucket):
    path = bucket / "runs/one/run.json"
    assert not path.exists()
    path.write_text("Grüße")
    assert path.read_text() == "Grüße"
    assert path.stat().st_size == 7
    assert path.is_file()
    assert not path.is_dir()
    with path.open("rb") as file:
        assert file.read(3) == b"Gr\xc3"
    path.write_bytes(b"")
    assert path.read_bytes() == b""
    path.unlink()
    assert not path.exists()
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"gs://.*/runs/one/run\.json"):
        path.read_bytes()


def test_files_go_up_and_come_down(bucket, tmp_path):
    (tmp_path / "up").write_bytes(bytes(range(256)) * 100)
    (bucket / "x").upload(tmp_path / "up")
    (bucket / "x").download(tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()


def test_a_directory_is_there_while_something_lies_in_it(bucket):
    folder = bucket / "checkpoints"
    folder.mkdir(parents=True)
    assert not folder.exists()
    assert list(folder.glob("*")) == []
    (folder / "400/params/d/x").write_bytes(b"1")
    (folder / "400/manifest.json").write_bytes(b"22")
    (folder / "checkpoints").write_bytes(b"333")
    assert folder.is_dir()
    assert [path.name for path in folder.iterdir()] == ["400", "checkpoints"]
    assert [path.name for path in folder.glob("4*")] == ["400"]
    assert {name: about["size"] for name, about in (folder / "400").below().items()} == {
        "manifest.json": 2,
        "params/d/x": 1,
    }
    with pytest.raises(FileExistsError):
        folder.mkdir()
    folder.mkdir(exist_ok=True)


def test_a_directory_is_renamed_and_removed_with_all_below(bucket):
    (bucket / "a/400/params/x").write_bytes(b"1")
    (bucket / "a/400/y").write_bytes(b"2")
    (bucket / "a/4000/y").write_bytes(b"3")
    target = (bucket / "a/400").rename(bucket / "a/damaged-400")
    assert target == bucket / "a/damaged-400"
    assert list((bucket / "a").below()) == ["4000/y", "damaged-400/params/x", "damaged-400/y"]
    assert (target / "y").read_bytes() == b"2"
    target.remove_below()
    target.remove_below()
    assert list((bucket / "a").below()) == ["4000/y"]


def test_what_others_write_is_seen_at_once(bucket, bucket_server):
    """gcsfs would remember what it has listed."""
    (bucket / "a/one").write_bytes(b"1")
    assert [path.name for path in (bucket / "a").iterdir()] == ["one"]
    code = "import sys; from glm_jax.buckets import BucketPath; BucketPath(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", f"{code}.write_bytes(b'2')", str(bucket / "a/two")], check=True
    )
    assert [path.name for path in (bucket / "a").iterdir()] == ["one", "two"]


def test_a_bucket_that_is_not_there_is_named(bucket_server):
    with pytest.raises(UserError, match="there is no bucket 'none-of-this-name'"):
        BucketPath("gs://none-of-this-name/run").exists()


@pytest.mark.parametrize(
    ("code", "said"), [(401, "no credentials that it takes"), (403, "no right to do this")]
)
def test_refusals_read_the_same_at_first_and_midway(bucket_server, code, said, monkeypatch):
    with refusing(code) as url, led_to(url):
        path = BucketPath("gs://b/run")
        for use in (path.exists, path.read_bytes, lambda: path.write_bytes(b"1")):
            with pytest.raises(UserError, match=rf"'gs://b/run' cannot be used: .*{said}"):
                use()
        buckets._USABLE.add("b")
        for use in (path.exists, path.read_bytes, lambda: path.write_bytes(b"1"), path.below):
            with pytest.raises(PermissionError, match=said) as caught:
                use()
            assert (caught.value.errno, caught.value.filename) == (errno.EACCES, "gs://b/run")


def test_without_gcsfs_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    buckets._file_system.cache_clear()
    buckets._USABLE.clear()
    with pytest.raises(UserError, match=r"need the package gcsfs; install it with: .*\[gcs\]"):
        BucketPath("gs://b/run").exists()


def of_package(name, text, code=None):
    """An error whose class is that of a package which need not be installed."""
    error = type("Failed", (Exception,), {"__module__": name})(text)
    if code is not None:
        error.code = code
    return error


def connector_error():
    """As aiohttp's: an OSError with a number of its own, here that of the resolver."""
    kind = type("ClientConnectorError", (OSError,), {"__module__": "aiohttp.client_exceptions"})
    return kind(-2, "Name or service not known")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError("Forbidden: b/o\nme@x"), errno.EACCES),
        (FileNotFoundError("b/nothing"), errno.ENOENT),
        (FileExistsError("b/there"), errno.EEXIST),
        (of_package("google.auth.exceptions", "no default"), errno.EACCES),
        (of_package("gcsfs.retry", "Anonymous caller, 401", 401), errno.EACCES),
        (of_package("google.api_core.exceptions", "412 POST", 412), errno.EEXIST),
        (of_package("gcsfs.retry", "backend, 503", 503), errno.EIO),
        (of_package("aiohttp.client_exceptions", "Cannot connect"), errno.EIO),
        (connector_error(), errno.EIO),
        (ValueError("PERMISSION_DENIED: me [http_response_code='403']"), errno.EACCES),
        (ValueError("UNAVAILABLE: CURL error[7] Couldn't connect"), errno.EIO),
    ],
)
def test_errors_of_the_libraries_have_the_systems_numbers(error, number):
    found = os_error(error, "gs://b/x")
    assert (found.errno, found.filename) == (number, "gs://b/x")
    assert found.strerror


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("vocabulary"),
        RuntimeError("UNAVAILABLE: Socket closed"),  # jax's network
        OSError("cannot load"),
    ],
)
def test_errors_of_others_are_left_alone(error):
    assert os_error(error) is None


def test_what_does_not_answer_says_what_was_said():
    error = os_error(of_package("aiohttp.client_exceptions", "Cannot connect to host\nmore"))
    assert error.strerror == "the bucket does not answer as it should: Cannot connect to host"


@pytest.mark.parametrize("kind", [ConnectionResetError, TimeoutError])
def test_a_connection_that_breaks_is_no_bug(kind):
    with pytest.raises(OSError, match="does not answer") as caught, as_os_errors("gs://b/x"):
        raise kind
    assert caught.value.errno == errno.EIO


def test_nothing_of_buckets_is_imported_before_one_is_used():
    code = "import sys, glm_jax.files; print({'fsspec', 'gcsfs', 'etils'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
