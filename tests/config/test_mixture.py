"""`data.mixture` in its three ways of writing, and what is refused."""

import json

import pytest

from glm_jax.config import Config, DataConfig, differences, from_dict, to_json
from glm_jax.config.files import apply_overrides
from glm_jax.config.mixture import Component
from glm_jax.errors import UserError

WRITTEN = [
    {"wiki": ("wiki/*.txt", 0.7), "books": ("task:my_books", 3)},
    "wiki=wiki/*.txt@0.7, books=task:my_books@3",
    [["wiki", "wiki/*.txt", 0.7], ["books", "task:my_books", 3]],
]


@pytest.mark.parametrize("value", WRITTEN)
def test_the_ways_to_write_it(value):
    data = DataConfig(mixture=value)
    assert data.mixture == (("wiki", "wiki/*.txt", 0.7), ("books", "task:my_books", 3.0))
    assert data.components[1] == Component("books", "task:my_books", 3.0)


def test_overrides_and_run_json():
    config = apply_overrides(Config(), [f"data.mixture={WRITTEN[1]}"])
    again = from_dict(json.loads(to_json(config)))
    assert again == config
    assert differences(config, again) == {}
    assert apply_overrides(config, ["data.mixture=none"]).data.components == ()
    # What an older version wrote.
    assert from_dict({"data": {"source": "bundled"}}).data.mixture is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wiki/*.txt", "is written"),
        (7, "is written"),
        ({"a": "b"}, "is written"),
        ("a=b@0", r"'a' a rate above 0; got '0'"),
        ("a=b@x", "rate above 0"),
        ([["a", "b", float("inf")]], "rate above 0"),
        ([["a", "b", float("nan")]], r"'a' a rate above 0; got nan"),
        ([["a", "b", True]], "rate above 0; got True"),
        ([["a", "b", 10**400]], "rate above 0; got a number of 1329 bits"),
        ("a=b@1e39", "rate above 0; got '1e39'"),
        ("a=b@1e-50", "rate above 0; got '1e-50'"),
        ("a=@1", "'a' a source; got ''"),
        ("a/b=c@1", r"must be of letters.*got 'a/b'"),
        ("a=b@1, a=c@1", "'a' twice"),
        ("a=b@1, c=d@1e-9", "a share of 1e-09; the least is 1e-06"),
    ],
)
def test_mistakes(value, message):
    with pytest.raises(UserError, match=message):
        DataConfig(mixture=value)
