"""Objects of SuperGLUE whose columns lie deeper, as rows of columns (super.gluebenchmark.com).

copa     a choice is the answer, the two are candidates
wsc      the pronoun is starred; only where the reference is right is there an answer to learn
multirc  one row per question and answer
record   one row per query, its first answer; entities are candidates
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from glm_jax.config.patterns import Column
from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject

Kind = TypeVar("Kind")

_CHOICE = Column("choice", ("bare", "lower"))


def copa(record: JsonObject) -> list[JsonObject]:
    """{"choice1": .., "choice2": .., "label": 0} with the right choice as its "answer"."""
    choices = [_CHOICE.text_of(_text(record, name)) for name in ("choice1", "choice2")]
    label = _get(record, "label", int)
    if label not in (0, 1):
        raise UserError(f"'label' must be 0 or 1; got {short(label)}")
    return [{**record, "answer": choices[label], "candidates": choices}]


def wsc(record: JsonObject) -> list[JsonObject]:
    """{"text": .., "target": {"span1_text": .., "span2_text": .., "span2_index": 9}}."""
    target = _get(record, "target", dict)
    words, index = _text(record, "text").split(), _get(target, "span2_index", int)
    if not 0 <= index < len(words):
        raise UserError(f"'span2_index' must lie in 0..{len(words) - 1}; got {index}")
    if not _get(record, "label", bool):
        return []
    words[index] = f"*{words[index]}*"
    answer, pronoun = _text(target, "span1_text"), _text(target, "span2_text")
    return [{"text": " ".join(words), "pronoun": pronoun, "answer": answer}]


def multirc(record: JsonObject) -> list[JsonObject]:
    """{"passage": {"text": .., "questions": [{"question": .., "answers": [{"text": .., ..}]}]}}."""
    passage = _get(record, "passage", dict)
    text = _text(passage, "text").rstrip()
    return [
        {
            "passage": text,
            "question": _text(question, "question"),
            "answer": _text(answer, "text"),
            "label": _get(answer, "label", int),
        }
        for question in _get(passage, "questions", list)
        for answer in _get(question, "answers", list)
    ]


def record(record: JsonObject) -> list[JsonObject]:
    """{"passage": {"text": .., "entities": [..]}, "qas": [{"query": .., "answers": [..]}]}."""
    passage = _get(record, "passage", dict)
    text = _text(passage, "text")
    spans = [
        (_get(one, "start", int), _get(one, "end", int)) for one in _get(passage, "entities", list)
    ]
    entities = sorted({text[start : end + 1] for start, end in spans})
    rows = []
    for one in _get(record, "qas", list):
        before, found, after = _text(one, "query").partition("@placeholder")
        if not found:
            raise UserError("'query' must have an @placeholder")
        answers = [_text(answer, "text") for answer in _get(one, "answers", list)]
        if not answers:
            raise UserError("'answers' must hold one at least")
        columns = {"passage": text.replace("@highlight\n", "- "), "query_before": before.rstrip()}
        candidates = sorted({answers[0], *entities})
        rows.append(
            {**columns, "query_after": after, "answer": answers[0], "candidates": candidates}
        )
    return rows


READERS: Mapping[str, Callable[[JsonObject], list[JsonObject]]] = {
    "copa": copa,
    "wsc": wsc,
    "multirc": multirc,
    "record": record,
}


def _get(values: object, name: str, kind: type[Kind]) -> Kind:
    """A value of JSON, of the kind that is asked for."""
    if not isinstance(values, Mapping) or name not in values:
        raise UserError(f"there is no column {name!r}")
    value = values[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{name!r} must be of the kind {kind.__name__}; got {short(value)}")
    return value


def _text(values: object, name: str) -> str:
    return str(_get(values, name, str))
