import pytest

from glm_jax.config.patterns import NAMED, Column, Pattern, named_pattern, read_pattern
from glm_jax.errors import UserError


def test_the_docstring():
    assert read_pattern("{text} It was [MASK].") == Pattern(
        (Column("text"), " It was "), "[MASK]", (".",)
    )
    found = read_pattern('"{hypothesis:bare}" ? [MASK], "{premise}"')
    assert found == Pattern(
        ('"', Column("hypothesis", ("bare",)), '" ? '), "[MASK]", (', "', Column("premise"), '"')
    )
    assert [one.name for one in found.columns] == ["hypothesis", "premise"]


def test_braces_and_every_blank():
    assert read_pattern("{{[gMASK]}} {a}") == Pattern(("{",), "[gMASK]", ("}", " ", Column("a")))
    assert read_pattern("[sMASK]{a}").blank == "[sMASK]"


def test_what_is_done_to_a_column():
    column = Column("a", ("bare", "lower", "whole"))
    assert column.text_of("He ran... ") == "he ran"
    assert not column.may_be_cut
    assert Column("a").text_of("He ran.") == "He ran."
    assert Column("a", ("lower",)).text_of("") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{text} It was.", r"must have one blank, \[MASK\] or \[gMASK\] or \[sMASK\]; .* has 0"),
        ("[MASK] {text} [MASK]", "has 2"),
        ("[MASK] {text} [gMASK]", "has 2"),
        ("It was [MASK].", "must have a column in braces"),
        ("{} [MASK]", "braces hold the name of a column"),
        ("{text [MASK]", "the braces of .* do not fit"),
        ("{text:loewr} [MASK]", r"asks for 'loewr' \(did you mean 'lower'\?\); there are bare"),
    ],
)
def test_what_is_no_pattern(text, message):
    with pytest.raises(UserError, match=message):
        read_pattern(text)


def test_names():
    assert named_pattern("{text} [MASK]") is None
    task, pattern = named_pattern("rte/4")
    assert (task, pattern.verbalizers) == (
        "rte",
        {"entailment": "true", "not_entailment": "false"},
    )
    assert named_pattern("cb")[1].verbalizers["neutral"] == "Maybe"
    with pytest.raises(UserError, match=r"the name of a pattern .did you mean 'boolq'.*: rte, cb"):
        named_pattern("bolq")
    with pytest.raises(UserError, match="rte has the patterns 0 to 4; got 'rte/5'"):
        named_pattern("rte/5")


def test_all_named_patterns_can_be_read():
    """As many as published: five of RTE and CB, six of BoolQ, .."""
    counts = {task: len(patterns) for task, patterns in NAMED.items()}
    assert counts == {
        **{"rte": 5, "cb": 5, "boolq": 6, "wic": 3},
        **{"multirc": 4, "copa": 2, "wsc": 3, "record": 1},
    }
    for patterns in NAMED.values():
        for one in patterns:
            texts = [one.pattern] if isinstance(one.pattern, str) else one.pattern.values()
            for text in texts:
                assert any(column.may_be_cut for column in read_pattern(text).columns)
