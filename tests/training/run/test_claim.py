"""An object that is written only where it is what was read before."""

import pytest

from glm_jax.buckets import BucketPath
from glm_jax.errors import UserError
from glm_jax.training.run.claim import Claim
from tests.bucket_server import led_to, refusing

pytestmark = pytest.mark.processes


def test_of_two_who_create_it_one_succeeds(bucket):
    first, second = Claim(bucket / "run/.owner"), Claim(bucket / "run/.owner")
    assert first.read() is None
    generation = first.write(b"first", None)
    with pytest.raises(FileExistsError):
        second.write(b"second", None)
    assert second.read() == (b"first", generation)


def test_of_two_who_replace_it_one_succeeds(bucket):
    first, second = Claim(bucket / "run/.owner"), Claim(bucket / "run/.owner")
    left = first.write(b"left", None)
    new = second.write(b"second", left)
    assert new != left
    with pytest.raises(FileExistsError):
        first.write(b"first", left)
    assert first.read() == (b"second", new)
    second.write(b"second, later", new)


def test_an_answer_that_was_lost_counts_as_ours(bucket):
    """The client asks again where no answer comes; the bucket then says that it is there."""
    claim = Claim(bucket / "run/.owner")
    generation = claim.write(b"ours", None)
    assert claim.write(b"ours", None) == generation


def test_it_is_removed_once(bucket):
    claim = Claim(bucket / "run/.owner")
    generation = claim.write(b"1", None)
    claim.remove(generation)
    claim.remove(generation)
    assert claim.read() is None
    assert not (bucket / "run").exists()


def test_what_somebody_else_has_written_is_not_removed(bucket):
    claim = Claim(bucket / "run/.owner")
    generation = claim.write(b"1", None)
    (bucket / "run/.owner").write_bytes(b"2")
    claim.remove(generation)
    assert (bucket / "run/.owner").read_bytes() == b"2"


def test_a_bucket_without_rights_is_one_sentence(bucket_server):
    with refusing(403) as url, led_to(url), pytest.raises(UserError, match="has no right"):
        Claim(BucketPath("gs://b/run/.owner"))
