"""The token store: what goes in comes out, and damage is named."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import glm_jax.files
from glm_jax.data import store as store_module
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


def change(**values):
    """Changes store.json; its fingerprint is made anew, as a foreign program would."""

    def changed(path):
        index = json.loads(path.read_text()) | values
        index["fingerprint"] = store_module._fingerprint(index)
        path.write_text(json.dumps(index))

    return changed


def one_field(path):
    path.write_text(path.read_text().replace('"mask": 3', '"mask": 20'))


def zeroed(path):
    content = path.read_bytes()
    path.write_bytes(content[:6] + bytes(len(content) - 6))


SPECIAL_IDS = dataclasses.asdict(SPECIAL)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train.tokens", truncate, r"train\.tokens has 10 bytes instead of 12"),
        ("train.tokens", lambda path: path.unlink(), r"train\.tokens"),
        ("train.tokens", zeroed, r"train\.tokens is not what was written: its checksum differs"),
        ("train.tokens", lambda path: path.write_bytes(b"\xff" * 12), r"ids outside 0\.\.99"),
        ("train.offsets.npy", truncate, "damaged"),
        ("train.offsets.npy", lambda path: np.save(path, [0, 3, 4, 5]), "does not fit"),
        ("train.offsets.npy", lambda path: np.save(path, [0, 4, 3, 6]), "does not ascend from 0"),
        ("train.offsets.npy", lambda path: np.save(path, [1, 3, 4, 6]), "does not ascend from 0"),
        ("train.offsets.npy", lambda path: np.save(path, [0, 3, 3, 6]), "does not ascend from 0"),
        ("train.offsets.npy", lambda path: np.save(path, [0, 3, 5, 6]), "its checksum differs"),
        ("train.offsets.npy", lambda path: np.save(path, [0.0, 3, 4, 6]), "does not fit"),
        ("sentence_ends.npy", lambda path: np.save(path, np.zeros(3, bool)), "sentence_ends"),
        ("sentence_ends.npy", lambda path: np.save(path, np.ones(100, bool)), "checksum differs"),
        ("store.json", truncate, "damaged"),
        ("store.json", lambda path: path.write_text("[]"), "damaged"),
        ("store.json", change(format=1), "of another version: its format is 1, .* reads 2; build"),
        ("store.json", one_field, "store.json is not what was written"),
        ("store.json", change(special={"gmask": 4}), "mask"),
        ("store.json", change(special=SPECIAL_IDS | {"mask": 100}), r"mask must lie in 0\.\.99"),
        ("store.json", change(special=SPECIAL_IDS | {"mask": "3"}), r"mask must lie in 0\.\.99"),
        ("store.json", change(dtype="float32"), "its ids are float32"),
        ("store.json", change(splits={"../train": {"documents": 3, "tokens": 6}}), "no split's"),
    ],
)
def test_damage_is_named(tmp_path, name, damage, message):
    damage(written(tmp_path / "store") / name)
    with pytest.raises(UserError, match=message):
        TokenStore.open(tmp_path / "store")


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    def made(name, documents, description):
        with StoreWriter(
            tmp_path / name,
            vocab_size=100,
            special=SPECIAL,
            sentence_ends=np.zeros(100, bool),
            description=description,
        ) as store:
            store.add("train", documents)
        return TokenStore.open(tmp_path / name).fingerprint

    first = made("a", [[10, 11], [12]], {"source": "a/*.txt", "tokenizer_fingerprint": "x"})
    assert first == made("b", [[10, 11], [12]], {"source": "b", "tokenizer_fingerprint": "x"})
    others = [
        made("c", [[10], [11, 12]], {"tokenizer_fingerprint": "x"}),
        made("d", [[10, 11], [13]], {"tokenizer_fingerprint": "x"}),
        made("e", [[10, 11], [12]], {"tokenizer_fingerprint": "y"}),
    ]
    assert len({first, *others}) == 4


def test_shares_of_documents_that_come_again(tmp_path):
    with writer(tmp_path / "store") as store:
        store.add("train", [[10, 11], [12], [10, 11], [10, 11]])
        store.add("eval", [[12], [13], [10], [11]])
        assert store.repeated() == {"train": 0.5, "eval": 0.0, "eval in train": 0.25}


def test_all_is_on_the_disk_before_the_store_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(glm_jax.files, "sync", lambda path: synced.append(path.name))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: (synced.append("rename"), rename(a, b)))
    written(tmp_path / "store")
    done = synced.index("rename")
    files = {"store.json", "sentence_ends.npy"} | {
        f"{split}.{end}" for split in ("train", "eval") for end in ("tokens", "offsets.npy")
    }
    assert files < set(synced[:done])
    assert synced[done - 1].startswith(".store.")
    assert synced[done + 1 :] == [tmp_path.name]
