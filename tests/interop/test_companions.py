"""Files that go with a model; links out of its directory do not."""

import json

import pytest

from glm_jax.interop.companions import COMPANIONS, Companions, keep_companions, lies_inside
from glm_jax.interop.origin import Origin


def names(files):
    return [file.name for file in files]


@pytest.fixture
def cache(tmp_path):
    """A snapshot in the hub's cache: a tokenizer behind a link into the blobs beside it."""
    model = tmp_path / "models--A--B"
    snapshot = model / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "blobs" / "hash").write_text("{}")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/hash")
    return snapshot


def test_links_within_the_cache_of_the_hub_go_along(cache, tmp_path):
    assert names(Companions.of(cache).files) == ["tokenizer.json"]
    # Through a link to the snapshot too.
    (tmp_path / "mine").symlink_to(cache)
    assert names(Companions.of(tmp_path / "mine").files) == ["tokenizer.json"]
    target = tmp_path / "out"
    target.mkdir()
    Companions.of(cache).copy_into(target)
    assert not (target / "tokenizer.json").is_symlink()
    assert (target / "tokenizer.json").read_text() == "{}"


def test_links_that_lead_elsewhere_are_left_out(cache, tmp_path, caplog):
    secret = tmp_path / "secret"
    secret.write_text("key")
    other = tmp_path / "models--A--C" / "blobs"
    other.mkdir(parents=True)
    (other / "hash").write_text("another model's")
    (cache / "vocab.json").symlink_to(secret)
    (cache / "merges.txt").symlink_to(other / "hash")
    (cache.parent.parent / "refs").write_text("main")
    (cache / "added_tokens.json").symlink_to("../../refs")
    found = Companions.of(cache)
    assert names(found.files) == ["tokenizer.json"]
    assert names(found.left_out) == ["added_tokens.json", "merges.txt", "vocab.json"]
    target = tmp_path / "out"
    target.mkdir()
    found.copy_into(target)
    assert [path.name for path in target.iterdir()] == ["tokenizer.json"]
    said = [record.getMessage() for record in caplog.records]
    assert said[2] == (
        f"{cache / 'vocab.json'} is left out: it is a link to {secret}, outside of its directory"
    )


def test_blobs_count_only_in_the_layout_of_the_cache(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "hash").write_text("x")
    home = tmp_path / "snapshots" / "0123"
    home.mkdir(parents=True)
    (home / "vocab.txt").symlink_to("../../blobs/hash")
    assert not lies_inside(home, home / "vocab.txt")


def test_links_within_the_directory_go_along(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "tokenizer.json").symlink_to("a.json")
    (tmp_path / "vocab.txt").symlink_to("nothing")
    assert names(Companions.of(tmp_path).files) == ["tokenizer.json"]
    assert Companions.of(None) == Companions()


def test_every_kind_of_vocabulary_is_known():
    assert {
        "cog-pretrain.model",
        "glm_tokenizer.json",
        "merges.txt",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
    } < set(COMPANIONS)


def test_a_workdir_is_told_what_ends_a_text(tmp_path):
    keep_companions(tmp_path, Origin())
    assert list(tmp_path.iterdir()) == []
    keep_companions(tmp_path, Origin(values={"eos_token_id": 7}, generation={"top_p": 0.8}))
    values = json.loads((tmp_path / "generation_config.json").read_text())
    assert values == {"top_p": 0.8, "eos_token_id": [7]}
