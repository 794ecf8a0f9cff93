import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.kinds import KINDS
from glm_jax.evaluation.task_spec import spec_of, with_metrics


def spec(table, kind="choice"):
    of = KINDS[kind]
    base = {"kind": kind, "data": "d.jsonl"}
    base |= dict.fromkeys(of.needs, "{text}")
    found = spec_of(base | table, "t.toml", of.needs, of.keys)
    return with_metrics(found, "t.toml", of.metrics, of.default)


def test_what_a_file_says_and_what_it_leaves_out():
    found = spec({"choices": ["a", "b"], "labels": ["x", "y"], "num_examples": 7})
    assert (found.choices, found.labels, found.num_examples) == (("a", "b"), ("x", "y"), 7)
    assert found.metrics == ("accuracy", "accuracy_per_token")
    assert spec({"metrics": ["exact", "first_3"]}, "fill").candidates == 3
    assert spec({"language": "zh", "stop": ["\n"]}, "generate").wording.language == "zh"


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        (
            "choice",
            {"promt": "x"},
            r"t\.toml: unknown key 'promt' \(did you mean 'prompt'\?\); a ta",
        ),
        ("choice", {"window": 3}, "t.toml: window is not for a task of the kind 'choice', which"),
        ("choice", {"choices": 3}, "t.toml: choices must be a list of texts or a text; got 3"),
        ("choice", {"choices": ["a", 3]}, "t.toml: choices must be texts, one at least; got"),
        ("choice", {"choices": []}, "choices must be texts, one at least"),
        ("choice", {"num_examples": 0}, "t.toml: num_examples must be at least 1; got 0"),
        ("choice", {"num_examples": "many"}, "num_examples must be a whole number; got 'many'"),
        ("choice", {"unidirectional": 1}, "unidirectional must be true or false; got 1"),
        ("choice", {"metrics": ["acuracy"]}, r"metric 'acuracy' is unknown \(did you mean 'accura"),
        ("choice", {"metrics": ["bleu"]}, "the metric 'bleu' is not for the kind 'choice'"),
        ("choice", {"metrics": ["first_5"]}, "the metric 'first_5' is not for the kind 'choice'"),
        ("choice", {"metrics": ["accuracy"] * 2}, "metrics must be distinct"),
        ("generate", {"language": "de"}, r"language must be one of \['en', 'zh'\]; got 'de'"),
        ("generate", {"decoding": {"num_beam": 2}}, "decoding must be one of .*mean 'num_beams'"),
        ("generate", {"decoding": {"top_p": 3}}, "t.toml: decoding: top_p must be"),
        ("generate", {"stemmer": True}, "stemmer = true is for ROUGE of English alone"),
        (
            "generate",
            {"stemmer": True, "language": "zh", "metrics": ["rouge1"]},
            "stemmer = true is for ROUGE of English alone",
        ),
        ("choice", {"unconditional": "x"}, "is for the metric 'accuracy_unconditional' alone"),
        ("generate", {"decoding": 3}, "decoding must be a table; got 3"),
        (
            "fill",
            {"metrics": ["first_5"], "decoding": {"num_beams": 2}},
            "first_5 is found by a beam search of its own; leave decoding out",
        ),
    ],
)
def test_mistakes(kind, table, message):
    with pytest.raises(UserError, match=message):
        spec(table, kind)


def test_a_key_that_is_needed():
    with pytest.raises(UserError, match=r"a task of the kind 'generate' needs prompt = \.\."):
        spec_of({"kind": "generate", "data": "x"}, "t.toml", ("prompt",), KINDS["generate"].keys)
