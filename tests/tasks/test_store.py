import hashlib
import sys

import numpy as np
import pytest

from glm_jax.config import DataConfig
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import store_key
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer

pytest.importorskip("seqio")
build_store = pytest.importorskip("glm_jax.tasks.store").build_store

pytestmark = pytest.mark.tensorflow


def documents(split):
    bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
    return [split.tokens[start:end].tolist() for start, end in bounds]


def test_a_store_holds_the_ids_of_the_documents(tmp_path, capsys):
    texts = [f"text {number} spells [MASK] and 天地" for number in range(700)]
    (tmp_path / "a.txt").write_bytes("\n\n".join(texts).encode() + b"\n\nbad \xff\n\nlast")
    data = DataConfig(source=str(tmp_path / "*.txt"), eval_fraction=0.2)
    build_store(data, tmp_path / "stores" / "one", progress=False)

    store = TokenStore.open(tmp_path / "stores" / "one")
    tokenizer = load_tokenizer("bundled")
    assert store.vocab_size == tokenizer.vocab_size
    assert store.special == tokenizer.special
    assert np.array_equal(store.sentence_ends, tokenizer.sentence_ends())
    train, held = (documents(store.splits[name]) for name in ("train", "eval"))
    assert sorted(train + held) == sorted(tokenizer.encode_batch([*texts, "last"]))
    assert 100 < len(held) < 180
    # The order is that of the file.
    numbers = [int(tokenizer.decode(ids).split()[1]) for ids in train if len(ids) > 5]
    assert numbers == sorted(numbers)

    path = tmp_path / "a.txt"
    assert store.description["files"] == [
        {
            "name": str(path),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    ]
    assert store.description["skipped_lines"] == {"not UTF-8": 1}
    assert store.description["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert store.description["key"] == store_key(data)
    warning = f"warning: skipped 1 line: 1 not UTF-8 ({path}:1401)\n"
    assert warning in capsys.readouterr().err


def test_bad_input_writes_nothing(tmp_path):
    data = DataConfig(source=str(tmp_path / "*.txt"))
    with pytest.raises(UserError, match="no file matches"):
        build_store(data, tmp_path / "stores" / "one")
    (tmp_path / "a.txt").write_bytes(b"\n\n\xff\n")
    with pytest.raises(UserError, match="empty corpus"):
        build_store(data, tmp_path / "stores" / "one")
    assert not (tmp_path / "stores").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"cannot write the token store .*GLM_JAX_CACHE"):
        build_store(DataConfig(source=str(tmp_path / "*.txt")), tmp_path / "a.txt" / "store")


def test_one_document_is_enough(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("all there is")
    build_store(DataConfig(source=str(tmp_path / "*.txt")), tmp_path / "store")
    store = TokenStore.open(tmp_path / "store")
    assert documents(store.splits["train"]) == documents(store.splits["eval"])
    assert "one document" in capsys.readouterr().err


def test_progress_goes_to_standard_error(tmp_path, capfd):
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    build_store(DataConfig(source=str(tmp_path / "*.txt")), tmp_path / "store", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "tokenising" in err
    assert "tensorflow" in sys.modules
