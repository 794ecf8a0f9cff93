"""JSON from strangers: read within limits, or one sentence that names the file."""

import pytest

from glm_jax import json_files
from glm_jax.errors import UserError
from glm_jax.json_files import MAX_DEPTH, parse_object, printable, read_object, shown, some


def nested(depth):
    """An object in which `depth - 1` lists lie in one another."""
    return '{"a": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


def test_an_object(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": [1, {"b": null}], "ä": "é"}', encoding="utf-8")
    assert read_object(path) == {"a": [1, {"b": None}], "ä": "é"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read x: Expecting"),
        ("", "cannot read x: Expecting value"),
        ("[]", "x must hold a JSON object; got list"),
        ("null", "x must hold a JSON object; got NoneType"),
        ("3", "x must hold a JSON object; got int"),
        ("[" * 100_000, "cannot read x: it is nested deeper than 100 levels"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "cannot read x: it is nested deeper than 100"),
        (nested(MAX_DEPTH + 1), "cannot read x: it is nested deeper than 100 levels"),
        ('{"a": 1, "b": 2, "a": 3}', "cannot read x: 'a' has two values, 1 and others"),
        ('{"b": {"a": [1], "a": [2]}}', r"cannot read x: 'a' has two values, \[1\] and others"),
        ('{"a": 1' + "0" * 5000 + "}", "cannot read x: Exceeds the limit"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_object(text, "x")
    assert "\n" not in str(caught.value)


def test_as_deep_as_it_may_be_and_a_key_twice_with_one_value():
    assert parse_object(nested(MAX_DEPTH), "x").keys() == {"a"}
    assert parse_object('{"a": 1, "a": 1}', "x") == {"a": 1}


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot read .*none.json"):
        read_object(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r"cannot read .*a.json: it is not UTF-8"):
        read_object(tmp_path / "a.json")
    monkeypatch.setattr(json_files, "MAX_BYTES", 9)
    with pytest.raises(UserError, match=r"a.json has 10 bytes; a file of its kind has at most 9"):
        read_object(tmp_path / "a.json")


def test_how_values_and_names_are_shown():
    assert shown("a\nb") == "'a\\nb'"
    assert shown("x" * 1000) == "'" + "x" * 76 + "..."
    assert printable("layers.0.weight") == "layers.0.weight"
    assert printable("\x1b[31mred") == "'\\x1b[31mred'"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert some(["a\n"]) == "'a\\n'"
    assert some([]) == "none"
