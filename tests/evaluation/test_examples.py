import json

import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.examples import (
    Example,
    as_json,
    check_template,
    column,
    read_lines,
    read_text,
    render,
    text_in,
    texts_in,
)

LINE = ("data.jsonl, line 3", {"text": "Good.", "stars": 5, "many": ["a", "b"], "flag": True})


def written(tmp_path, text):
    path = tmp_path / "data.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_know_where_they_stand(tmp_path):
    path = written(tmp_path, '\ufeff{"a": 1}\n\n{"a": "a\u2028b"}\n{"a": 3}\n')
    found = read_lines(path, 2)
    assert found == [(f"{path}, line 1", {"a": 1}), (f"{path}, line 3", {"a": "a\u2028b"})]
    assert len(read_lines(path)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no examples"),
        ('{"a": 1}\n[2]\n', r"line 2 must hold a JSON object; got list"),
        ('{"a": 1}\n{"a": \n', r"cannot read .*data\.jsonl, line 2: "),
    ],
)
def test_what_is_no_example_is_named_by_file_and_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_lines(written(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        read_lines(tmp_path / "none.jsonl")
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match="it is not UTF-8"):
        read_text(tmp_path / "latin")
    with pytest.raises(UserError, match="holds no text"):
        read_text(written(tmp_path, " \n"))


def test_columns():
    assert column(LINE, "stars") == 5
    assert text_in(LINE, "stars") == "5"
    assert texts_in(LINE, "many") == ("a", "b")
    assert texts_in(LINE, "text") == ("Good.",)
    with pytest.raises(
        UserError, match=r"line 3: no column 'txt' \(did you mean 'text'\?\); there"
    ):
        column(LINE, "txt")
    with pytest.raises(UserError, match=r"line 3: 'many' must be a text; got \['a', 'b'\]"):
        text_in(LINE, "many")
    with pytest.raises(UserError, match="'flag' must be a text, or a list of texts; got True"):
        texts_in(LINE, "flag")


def test_columns_in_a_prompt():
    assert render(LINE, "{text} {{it}} was {stars}.") == ("Good. {it} was 5.", ("Good.", "5"))
    # What a column holds is no template.
    line = ("here", {"text": "{stars}"})
    assert render(line, "{text}!") == ("{stars}!", ("{stars}",))


@pytest.mark.parametrize("template", ["{", "{}", "{text!r}", "{text:>9}", "a } b"])
def test_braces_hold_names_alone(template):
    with pytest.raises(UserError, match=r"t\.toml: the prompt .* has braces that hold no column"):
        check_template(template, "t.toml")


def test_the_content_of_an_example_is_not_where_it_stands():
    one, other = (Example(where, "a", ("b",)) for where in ("x, line 1", "y, line 2"))
    assert one.content() == other.content()
    assert json.loads(as_json([one.content()]))[0]["prompt"] == "a"
