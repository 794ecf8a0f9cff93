import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation.windows import windows

CASES = Path(__file__).parents[1] / "golden" / "glm" / "data" / "task_inputs.json"
SPECIAL = {"mask_ids": [2, 7, 8], "start_id": 5}
WINDOWS = {"prefix_ids": [1], "mask_id": 7, "start_id": 5}


def case(name):
    return next(c for c in json.loads(CASES.read_text())["cases"] if c["id"] == name)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_answers_of_several_ids_have_the_published_scores(lm, penalty):
    golden = case(f"multi_token_scores_lp{penalty}")
    ids = [1, *golden["input"]["context"], 0]
    scores = lm.score(ids, golden["input"]["choices"], length_penalty=penalty, **SPECIAL)
    assert scores == pytest.approx(golden["output"]["scores"], abs=1e-4)


def test_answers_of_one_id_have_the_published_scores(lm):
    golden = case("single_token_scores_softmax_True")
    ids = [1, *golden["input"]["context"], 0]
    answers = [[id_] for id_ in golden["input"]["label_token_ids"]]
    assert lm.score(ids, answers, **SPECIAL) == pytest.approx(golden["output"]["scores"], abs=1e-4)


def test_a_greedy_answer_is_predicted(lm, cases):
    golden = next(c for c in cases["greedy"] if c["id"] == "one_MASK")
    ids, answer = golden["context"], [*golden["blanks"][0]["tokens"], 6]
    other = [answer[0], answer[1] + 1, *answer[2:]]
    assert lm.predicts([ids, ids], [answer, other], **SPECIAL) == [True, False]
    # What comes from the left is another row, and the same answer less likely or not the best.
    first, second = lm.score(ids, [answer, other], **SPECIAL)
    assert first > second


def test_a_text_from_left_to_right_is_what_its_parts_are(lm):
    """log p(text) is the same in one piece and as the sum of its ids, one after another."""
    text = [30, 40, 50, 60]
    (whole,) = lm.score([1, 7], [text], unidirectional=True, **SPECIAL)
    parts = [
        lm.score([1, 7, *text[:i]], [[text[i]]], unidirectional=True, **SPECIAL)[0]
        for i in range(4)
    ]
    assert whole == pytest.approx(sum(parts), abs=1e-4)


@pytest.mark.parametrize("both_ways", [False, True])
def test_perplexity_is_that_of_its_windows(lm, both_ways):
    """Each window as the prompt and the answer of `score`, which has other vectors."""
    ids = np.random.default_rng(1).integers(20, 128, 50).tolist()
    options = {"window": 23, "stride": 8, **WINDOWS}
    found = lm.token_log_probabilities(ids, both_ways, **options)
    assert found.shape == (49,)
    for window in windows(50, 23, 8):
        known, new = ids[window.start : window.new], ids[window.new : window.end]
        prompt = [1, *known, 7] if both_ways else [1, known[0], 7, *known[1:]]
        (score,) = lm.score(prompt, [new], unidirectional=True, **SPECIAL)
        part = found[window.new - 1 : window.end - 1].sum()
        assert part == pytest.approx(score, abs=1e-3)
    perplexity = lm.perplexity(ids, both_ways, **options)
    assert perplexity == pytest.approx(np.exp(-found.mean()), rel=1e-6)


def test_a_causal_model_scores_what_follows(causal_lm):
    text = [3, 9, 4, 20, 11]
    (whole,) = causal_lm.score([7], [text])
    parts = [causal_lm.score([7, *text[:i]], [[text[i]]])[0] for i in range(5)]
    assert whole == pytest.approx(sum(parts), abs=1e-4)
    found = causal_lm.token_log_probabilities([7, *text])
    assert found.sum() == pytest.approx(whole, abs=1e-4)
    scores = causal_lm.score([7], [[id_] for id_ in range(16)])
    assert causal_lm.predicts([[7]] * 16, [[id_] for id_ in range(16)]) == [False] * 16
    assert np.exp(scores).sum() < 1


def test_mistakes_are_named(lm, causal_lm):
    with pytest.raises(UserError, match="a causal model sees from left to right"):
        causal_lm.perplexity([1, 2, 3], bidirectional=True)
    with pytest.raises(UserError, match="the prompt is empty"):
        causal_lm.score([], [[3]])
    with pytest.raises(UserError, match=r"no blank to score: none of the mask ids \[2, 7, 8\]"):
        lm.score([1, 30], [[3]], **SPECIAL)
    with pytest.raises(UserError, match="no answers to score"):
        lm.score([1, 2], [], **SPECIAL)
    with pytest.raises(UserError, match="give mask_ids="):
        lm.score([1, 2], [[3]])
    with pytest.raises(UserError, match="got 1 for 2"):
        lm.predicts([[1, 2]] * 2, [[3]], **SPECIAL)


def test_scores_of_every_id_are_in_the_order_of_the_prompts(lm, causal_lm):
    """Rows are computed by length; nine of them, so that two batches are."""
    random = np.random.default_rng(4)
    prompts = [[1, *random.integers(20, 60, n).tolist(), 2] for n in (9, 2, 7, 30, 3, 5, 21, 4, 8)]
    answers = [random.integers(20, 60, n).tolist() for n in (1, 3, 2, 1, 4, 2, 1, 2, 3)]
    for model, options in ((lm, SPECIAL), (causal_lm, {})):
        found = model.answer_scores(prompts, answers, **options)
        assert [len(one.best) for one in found] == [1, 3, 2, 1, 4, 2, 1, 2, 3]
        alone = [
            model.score(prompt, [answer], **options)[0]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        sums = [float(one.log_probabilities.sum()) for one in found]
        assert sums == pytest.approx(alone, abs=1e-4)
        assert len({round(one, 3) for one in sums}) == 9
