"""The token store: what goes in comes out, and damage is named."""

import json

import numpy as np
import pytest

from glm_jax.data.store import StoreWriter, TokenStore
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=0)


def writer(directory, vocab_size=100):
    ends = np.zeros(vocab_size, bool)
    ends[[20, 21]] = True
    return StoreWriter(
        directory,
        vocab_size=vocab_size,
        special=SPECIAL,
        sentence_ends=ends,
        description={"source": "诗.txt"},
    )


def written(directory, **options):
    with writer(directory, **options) as store:
        store.add("train", [[10, 11, 12], [], [13]])
        store.add("eval", [])
        store.add("train", [np.array([14, 99])])
    return directory


@pytest.mark.parametrize(("vocab_size", "dtype"), [(100, np.uint16), (65536, np.int32)])
def test_round_trip(tmp_path, vocab_size, dtype):
    store = TokenStore.open(written(tmp_path / "deep" / "store", vocab_size=vocab_size))
    train = store.splits["train"]
    assert train.tokens.tolist() == [10, 11, 12, 13, 14, 99]
    assert train.tokens.dtype == dtype
    assert train.offsets.tolist() == [0, 3, 4, 6]
    assert (len(train), train.num_tokens, train.name) == (3, 6, "train")
    assert (len(store.splits["eval"]), store.splits["eval"].num_tokens) == (0, 0)
    assert (store.vocab_size, store.special) == (vocab_size, SPECIAL)
    assert store.sentence_ends.nonzero()[0].tolist() == [20, 21]
    assert store.description == {"source": "诗.txt"}


def documents_that_break_off():
    yield [10]
    raise RuntimeError("the corpus ended")


def test_nothing_is_left_of_a_failed_store(tmp_path):
    with pytest.raises(RuntimeError), writer(tmp_path / "store") as store:
        store.add("train", documents_that_break_off())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ids", [[10, 100], [-1], [10, SPECIAL.mask], [SPECIAL.eos]])
def test_ids_that_text_cannot_have(tmp_path, ids):
    with (
        pytest.raises(ValueError, match="document 1 of split 'train'"),
        writer(tmp_path / "s") as store,
    ):
        store.add("train", [[10], ids])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten(tmp_path):
    written(tmp_path / "store")
    with pytest.raises(UserError, match="exists already"):
        writer(tmp_path / "store")


def test_two_processes_that_build_the_same_store(tmp_path):
    slow = writer(tmp_path / "store")
    slow.add("train", [[10]])
    written(tmp_path / "store")
    slow.close()
    assert TokenStore.open(tmp_path / "store").splits["train"].num_tokens == 6
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_missing_store(tmp_path):
    with pytest.raises(UserError, match=r"no token store at .*store\.json is missing"):
        TokenStore.open(tmp_path / "nowhere")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def other_format(path):
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))


def no_special(path):
    index = json.loads(path.read_text())
    del index["special"]["mask"]
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train.tokens", truncate, r"train\.tokens has 10 bytes in place of 12"),
        ("train.tokens", lambda path: path.unlink(), r"train\.tokens"),
        ("train.offsets.npy", truncate, "damaged"),
        ("train.offsets.npy", lambda path: np.save(path, [0, 3, 4, 5]), "does not fit"),
        ("sentence_ends.npy", lambda path: np.save(path, np.zeros(3, bool)), "sentence_ends"),
        ("store.json", truncate, "damaged"),
        ("store.json", other_format, "format is 2, this version reads 1"),
        ("store.json", no_special, "mask"),
    ],
)
def test_damage_is_named(tmp_path, name, damage, message):
    damage(written(tmp_path / "store") / name)
    with pytest.raises(UserError, match=message):
        TokenStore.open(tmp_path / "store")
