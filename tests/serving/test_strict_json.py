import pytest

from glm_jax.serving.strict_json import MAX_DEPTH, JsonError, parsed


def test_json_is_read_as_it_stands():
    text = '{"a": [1, -2.5, true, null, "床\\u5e8a😀\\ud83d\\ude00"], "": {}}'
    assert parsed(text.encode()) == {"a": [1, -2.5, True, None, "床床😀😀"], "": {}}
    assert parsed(b"3") == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'{"a": NaN}', "finite; got NaN"),
        (b'{"a": -Infinity}', "finite; got -Infinity"),
        (b'{"a": 1e999}', "finite; got '1e999'"),
        (b'{"a": "\\ud800"}', "half a character, .ud800"),
        (b'{"\\udc00": 1}', "half a character, .udc00"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper"),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "nested deeper"),
        (b"9" * 5000, "thousands of digits"),
    ],
)
def test_what_readers_differ_in_is_refused_in_one_line(body, said):
    with pytest.raises(JsonError, match=said) as found:
        parsed(body)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_the_deepest_that_is_allowed():
    depth = MAX_DEPTH
    assert parsed(b"[" * depth + b"]" * depth)
