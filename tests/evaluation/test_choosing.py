import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation import choosing
from glm_jax.evaluation.asked import Prepared
from glm_jax.evaluation.prompting import Pair, Prompts
from glm_jax.evaluation.task_spec import Spec
from tests.evaluation.models import BLANKS, CAUSAL, SPECIAL, TOKENIZER, Oracle, random_model

LINE = ("d.jsonl, line 2", {"text": "In the beginning God", "answer": "made", "many": ["a", "b"]})
ALL = ("accuracy", "accuracy_per_token", "accuracy_per_character", "accuracy_unconditional")
SPEC = Spec("choice", "d.jsonl", prompt="{text} [MASK] it.", choices=("said", "made"), metrics=ALL)


def changed(**values):
    return Spec(**{**SPEC.__dict__, **values})


def prepared(spec, line=LINE, config=BLANKS):
    return choosing.prepare(Prompts(TOKENIZER, config), spec, choosing.example(spec, line))


def test_the_right_choice_by_text_label_or_index():
    one = choosing.example(SPEC, LINE)
    assert (one.right, one.references) == (1, ("made",))
    assert choosing.example(changed(labels=("made", "x")), LINE).right == 0
    for value, labels, right in ((0, None, 0), (1, ("1", "2"), 0), ("2", ("1", "2"), 1)):
        line = (LINE[0], LINE[1] | {"answer": value})
        assert choosing.example(changed(labels=labels), line).right == right
    assert (
        choosing.example(changed(choices="many"), (LINE[0], LINE[1] | {"answer": "b"})).right == 1
    )


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (
            {},
            "mad",
            r"line 2: 'answer' is 'mad', which is not among the choices \(did you mean 'ma",
        ),
        ({}, 2, "'answer' is 2, which is not among the choices: .* an index from 0 to 1"),
        ({}, -1, "'answer' is -1, which is not among the choices"),
        ({}, True, "'answer' is True, which is not among the choices"),
        (
            {"labels": ("good", "bad")},
            0,
            "'answer' is 0, which is not among the labels: 'good', 'b",
        ),
        ({"labels": ("good",)}, 0, "labels must be one per choice; got 1 for 2"),
        ({"choices": ("a",)}, "a", "choices must be two texts or more, each another"),
        ({"choices": ("a", "a")}, "a", "choices must be two texts or more, each another"),
        ({"choices": ("a", " ")}, "a", "choices must be two texts or more"),
        ({"choices": "text"}, "a", "choices must be two texts or more"),
    ],
)
def test_labels_that_are_none(spec, value, message):
    with pytest.raises(UserError, match=message):
        choosing.example(changed(**spec), (LINE[0], LINE[1] | {"answer": value}))


@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_those_of_the_model(causal):
    """Each choice in its own call of `lm.score`, from the text that a person would write."""
    lm = random_model(causal)
    one = prepared(SPEC, config=lm.config)
    (outcome,) = choosing.ask(lm, SPEC, [one])
    encode = TOKENIZER.encode
    if causal:
        start = [SPECIAL.gmask, SPECIAL.start]
        before = "In the beginning God"
        whole = {c: encode(f"{before} {c} it.")[len(encode(before)) :] for c in SPEC.choices}
        context, alone = [*start, *encode(before)], {c: encode(c) for c in SPEC.choices}
        sums = {c: lm.score(context, [whole[c]])[0] for c in SPEC.choices}
        base = {c: lm.score(start, [alone[c]])[0] for c in SPEC.choices}
    else:
        context = encode("In the beginning God [MASK] it.", allow_special=True)
        context = [SPECIAL.cls, *context, SPECIAL.eos]
        whole = {c: [*encode(c), SPECIAL.end] for c in SPEC.choices}
        sums = {c: lm.score(context, [whole[c]])[0] for c in SPEC.choices}
        bare = [SPECIAL.cls, SPECIAL.mask, SPECIAL.eos]
        base = {c: lm.score(bare, [whole[c]])[0] for c in SPEC.choices}
    wanted = {
        "accuracy": sums,
        "accuracy_per_token": {c: sums[c] / len(whole[c]) for c in sums},
        "accuracy_per_character": {c: sums[c] / len(c) for c in sums},
        "accuracy_unconditional": {c: sums[c] - base[c] for c in sums},
    }
    for name, scores in wanted.items():
        assert outcome.rows[name].tolist() == [float(max(scores, key=scores.get) == "made"), 1.0]
    assert outcome.answer == max(sums, key=sums.get)


def test_normalisations_choose_differently():
    """Each of four choices is the best by one of them.

    choice     ids  characters  sum   per token  per character  less the unconditional
    ab           1           2  -2.0       -2.0           -1.0                    -1.0
    abcdefgh     4           8  -4.0       -1.0           -0.5                    -3.0
    a..t         2          20  -5.0       -2.5          -0.25                    -4.0
    zz           1           2  -6.0       -6.0           -3.0                    14.0
    """
    lm = Oracle()
    lm.likely = {1: -2.0, 2: -1.0, 3: -2.5, 4: -6.0, 5: -1.0, 6: -20.0}
    answers = [[1], [2] * 4, [3] * 2, [4], [5], [5], [5], [6]]
    choices = ("ab", "abcdefgh", "abcdefghijklmnopqrst", "zz")
    spec = changed(choices=choices)
    pairs = tuple(Pair([9], answer, False) for answer in answers)
    best = dict(zip(choices, ALL, strict=True))
    for choice in choices:
        one = choosing.example(spec, (LINE[0], LINE[1] | {"answer": choice}))
        (outcome,) = choosing.ask(lm, spec, [Prepared(one, pairs=pairs)])
        assert {name for name, row in outcome.rows.items() if row[0] == 1.0} == {best[choice]}
        assert outcome.answer == "ab"


def test_from_left_to_right_no_end_is_scored():
    spec = changed(prompt="{text}", unidirectional=True, metrics=("accuracy",))
    lm = Oracle()
    choosing.ask(lm, spec, [prepared(spec)])
    ids = TOKENIZER.encode("In the beginning God")
    assert lm.asked[0] == (
        [SPECIAL.cls, SPECIAL.gmask, *ids],
        TOKENIZER.encode("In the beginning God said")[len(ids) :],
        True,
    )
    with pytest.raises(UserError, match="unidirectional is for models that fill blanks"):
        prepared(spec, config=CAUSAL)


LAMBADA = Spec("last_word", "d.jsonl", metrics=("accuracy",))


def last_word(spec, config, text="In the beginning God made"):
    one = choosing.example_of_last_word(spec, ("d.jsonl, line 2", {"text": text}))
    return choosing.prepare_last_word(Prompts(TOKENIZER, config), spec, one)


def test_last_words():
    ids = TOKENIZER.encode("In the beginning God")
    (pair,) = last_word(LAMBADA, BLANKS).pairs
    assert pair.prompt == [SPECIAL.cls, *ids, SPECIAL.mask, SPECIAL.eos]
    assert pair.answer == TOKENIZER.encode("made")
    (pair,) = last_word(LAMBADA, CAUSAL).pairs
    assert pair.prompt == [SPECIAL.gmask, SPECIAL.start, *ids]
    spec = Spec("last_word", "d.jsonl", unidirectional=True, metrics=("accuracy",))
    (pair,) = last_word(spec, BLANKS).pairs
    # Part A has the first token; what is behind the mask goes to part B.
    assert pair.prompt == [SPECIAL.cls, ids[0], SPECIAL.gmask, *ids[1:]]
    with pytest.raises(UserError, match="unidirectional is for models that fill blanks"):
        last_word(spec, CAUSAL)
    with pytest.raises(UserError, match="line 2: a passage needs two words at least"):
        last_word(LAMBADA, BLANKS, "one")


def test_a_last_word_is_right_at_every_id():
    lm, one = Oracle(), last_word(LAMBADA, BLANKS, "God created a multitude")
    answer = one.pairs[0].answer
    (outcome,) = choosing.ask_last_word(lm, LAMBADA, [one])
    assert outcome.rows["accuracy"].tolist() == [0.0, 1.0]
    lm.likely = dict.fromkeys(answer, -0.5)
    (outcome,) = choosing.ask_last_word(lm, LAMBADA, [one])
    assert outcome.rows["accuracy"].tolist() == [1.0, 1.0]
    assert outcome.answer == "multitude"
