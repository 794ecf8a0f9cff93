"""What stores have in common when they are opened; the files of each are looked at in its tests."""

import dataclasses
import json

import pytest

from glm_jax.data.opening import opened_store, special_tokens_of
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

INDEX = {"format": 3, "fingerprint": "f", "vocab_size": 9}


def opened(directory, index=None, found=lambda directory, index: index["vocab_size"]):
    if index is not None:
        (directory / "index.json").write_text(json.dumps(index))
    return opened_store(directory, "store of tests", "index.json", 3, lambda _: "f", found)


def test_an_index_that_fits_opens_the_rest(tmp_path):
    assert opened(tmp_path, INDEX) == 9


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no store of tests at .*: index\.json is missing"):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"its format is 2, this version reads 3; build it anew"):
        opened(tmp_path, {**INDEX, "format": 2})
    with pytest.raises(UserError, match=r"is damaged \(index\.json is not what was written\); re"):
        opened(tmp_path, {**INDEX, "fingerprint": "g"})


def test_a_file_that_does_not_fit_is_damage(tmp_path):
    def found(directory, index):
        raise OSError("no such file")

    with pytest.raises(UserError, match=r"the store of tests .* is damaged \(no such file\)"):
        opened(tmp_path, INDEX, found)


def test_special_ids_lie_in_the_vocabulary():
    with pytest.raises(ValueError, match=r"the id of pad must lie in 0\.\.8; got 9"):
        special_tokens_of({"vocab_size": 9, "special": {**special(), "pad": 9}})
    assert special_tokens_of({"vocab_size": 9, "special": special()}).pad == 7


def special():
    """Ids of all roles, from 0 on."""
    return {field.name: n for n, field in enumerate(dataclasses.fields(SpecialTokens))}
