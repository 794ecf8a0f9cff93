"""What lies in a bucket is copied to this machine once, whole, and is what lies there."""

import collections
import shutil

import pytest

from glm_jax import fetching
from glm_jax.buckets import BucketPath
from glm_jax.errors import UserError
from glm_jax.fetching import fetched

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def there(bucket):
    """A directory of two files."""
    (bucket / "stores/wiki/store.json").write_bytes(b"{}")
    (bucket / "stores/wiki/books/train.tokens").write_bytes(bytes(range(256)) * 40)
    return bucket / "stores/wiki"


def test_it_is_copied_once(there, cache, monkeypatch):
    copy = fetched(there)
    assert copy.parent == cache / "fetched"
    assert copy.name.startswith("wiki-")
    assert (copy / "store.json").read_bytes() == b"{}"
    assert (copy / "books/train.tokens").read_bytes() == bytes(range(256)) * 40
    monkeypatch.setattr(BucketPath, "download", None)  # would raise
    assert fetched(there) == copy


def test_what_has_changed_is_copied_again_and_the_old_copy_stays(there):
    before = fetched(there)
    (there / "store.json").write_bytes(b"[]")
    after = fetched(there)
    assert after != before
    assert (after / "store.json").read_bytes() == b"[]"
    assert (before / "store.json").read_bytes() == b"{}"


def test_only_what_is_wanted_is_copied(there):
    copy = fetched(there, wanted=lambda name: "/" not in name)
    assert [file.name for file in copy.iterdir()] == ["store.json"]


@pytest.mark.parametrize("kind", fetching._CHECKSUMS)
def test_a_bit_that_flips_on_the_way_is_found(there, cache, monkeypatch, kind):
    download = BucketPath.download

    def damaged(path, target):
        download(path, target)
        content = bytearray(target.read_bytes())
        content[0] ^= 1
        target.write_bytes(bytes(content))

    monkeypatch.setattr(BucketPath, "download", damaged)
    monkeypatch.setattr(fetching, "_CHECKSUMS", (kind,))
    with pytest.raises(UserError, match=r"the copy of 'gs://.*' is not what .*checksum differs"):
        fetched(there)
    assert list((cache / "fetched").iterdir()) == []


def test_what_a_check_refuses_is_not_kept_and_named_as_in_the_bucket(there, cache):
    def check(copy):
        raise UserError(f"{copy / 'store.json'} is odd")

    with pytest.raises(UserError, match=rf"^{there}/store.json is odd$"):
        fetched(there, check=check)
    assert list((cache / "fetched").iterdir()) == []


def test_nothing_there_is_refused(bucket):
    with pytest.raises(UserError, match=r"nothing lies in 'gs://.*/none'"):
        fetched(bucket / "none")


def test_names_cannot_lead_out_of_the_directory(bucket, tmp_path):
    with pytest.raises(UserError, match="leads out of its directory"):
        fetching._fetch(bucket, "../evil", {"size": 1}, tmp_path)


def test_a_disk_that_is_too_small_is_named_first(there, cache, monkeypatch):
    usage = collections.namedtuple("usage", "free")(10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 10,242 bytes, and the disk .* has 10 free"):
        fetched(there)
    assert not cache.exists()


def test_a_path_of_this_machine_is_itself(tmp_path):
    assert fetched(tmp_path) is tmp_path
