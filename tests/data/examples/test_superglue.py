"""Objects of the published files, shortened, as clozes."""

import pytest

import glm_jax
from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.clozes import ClozeMaker
from glm_jax.data.examples.superglue import READERS, copa, multirc, record, wsc
from glm_jax.errors import UserError

TOKENIZER = glm_jax.load_tokenizer("bundled")
COPA = {
    "premise": "My body cast a shadow over the grass.",
    "choice1": "The sun was rising.",
    "choice2": "The grass was cut.",
    "question": "cause",
    "label": 0,
}
WSC = {
    "text": "Mark told Pete many lies about himself.",
    "target": {"span1_text": "Mark", "span2_text": "himself", "span2_index": 6},
    "label": True,
}
MULTIRC = {
    "passage": {
        "text": "Anna slept. ",
        "questions": [
            {
                "question": "Who slept?",
                "answers": [{"text": "Anna", "label": 1}, {"text": "Bo", "label": 0}],
            }
        ],
    }
}
RECORD = {
    "passage": {
        "text": "Bo met Anna.",
        "entities": [{"start": 0, "end": 1}, {"start": 7, "end": 10}],
    },
    "qas": [{"query": "She is @placeholder, they say", "answers": [{"text": "Anna"}]}],
}


def filled(pattern, values):
    maker = ClozeMaker(ExamplesConfig(format="cloze", pattern=pattern), TOKENIZER, True)
    found = [maker.filled(one, one.answer) for one in maker.clozes(values)]
    return [(f"{one.before}{one.blank}{one.after}", one.answer) for one in found]


def test_copa():
    text = '"the sun was rising" or "the grass was cut"? My body cast a shadow over the grass'
    assert filled("copa", COPA) == [(f"{text} because [MASK].", "the sun was rising")]
    effect = {**COPA, "question": "effect", "label": 1}
    assert filled("copa", effect) == [(f"{text}, so [MASK].", "the grass was cut")]
    assert copa(COPA)[0]["candidates"] == ["the sun was rising", "the grass was cut"]
    with pytest.raises(UserError, match="'label' must be 0 or 1; got 2"):
        copa({**COPA, "label": 2})
    with pytest.raises(UserError, match=r"'question' must be one of .'cause', 'effect'"):
        filled("copa", {**COPA, "question": "why"})


def test_wsc():
    starred = "Mark told Pete many lies about *himself.*"
    assert filled("wsc", WSC) == [(f"{starred} The pronoun '*himself*' refers to [MASK].", "Mark")]
    assert wsc({**WSC, "label": False}) == []
    with pytest.raises(UserError, match=r"'span2_index' must lie in 0\.\.6; got 7"):
        wsc({**WSC, "target": {**WSC["target"], "span2_index": 7}})


def test_multirc():
    assert filled("multirc", MULTIRC) == [
        ("Anna slept. Question: Who slept? Is it Anna? [MASK].", "Yes"),
        ("Anna slept. Question: Who slept? Is it Bo? [MASK].", "No"),
    ]
    assert [row["label"] for row in multirc(MULTIRC)] == [1, 0]


def test_record():
    assert filled("record", RECORD) == [("Bo met Anna. She is [MASK], they say", "Anna")]
    assert record(RECORD)[0]["candidates"] == ["Anna", "Bo"]
    with pytest.raises(UserError, match="'query' must have an @placeholder"):
        record({**RECORD, "qas": [{"query": "x", "answers": [{"text": "Anna"}]}]})


def test_wic_and_cb():
    words = {"sentence1": "A bat flew.", "sentence2": "He swung a bat.", "word": "bat"}
    assert filled("wic", {**words, "label": False}) == [
        ('"A bat flew." / "He swung a bat." Similar sense of "bat"? [MASK].', "No")
    ]
    # The letter stands behind the bracket without a space.
    assert filled("wic/2", {**words, "label": True}) == [
        ('bat . Sense (1) (a) "A bat flew." ([MASK]) "He swung a bat."', "b")
    ]
    pair = {"premise": "It may rain.", "hypothesis": "It rains.", "label": "neutral"}
    assert filled("cb", pair) == [('"It rains" ? [MASK], "It may rain."', "Maybe")]


@pytest.mark.parametrize("name", READERS)
def test_another_object(name):
    with pytest.raises(UserError, match="there is no column"):
        READERS[name]({"text": "a"})
