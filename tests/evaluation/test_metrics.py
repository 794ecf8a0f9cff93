import builtins
import importlib.util
import math

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.metrics import (
    METRICS,
    Wording,
    check_packages,
    compared,
    first_k,
    measure,
    metric_of,
    normalized,
    signature,
    token_f1,
)

ENGLISH, CHINESE = Wording(), Wording("zh")


def score(name, answer, references, how=ENGLISH):
    return compared(name, answer, references, how)[0]


def test_squads_normalisation():
    assert normalized("The Cat, sat on a mat!") == ["cat", "sat", "on", "mat"]
    assert normalized("An apple's theory") == ["apples", "theory"]
    assert normalized("模型GLM-130B。 好", "zh") == ["模", "型", "glm130b", "好"]


@pytest.mark.parametrize(
    ("answer", "references", "exact_match", "f1"),
    [
        # The values of SQuAD's script (evaluate-v2.0.py), by hand.
        ("the Denver Broncos", ["Denver Broncos"], 1.0, 1.0),
        ("Denver", ["Denver Broncos"], 0.0, 2 / 3),
        ("in 1066 and 1067", ["1066", "in 1067"], 0.0, 2 * 2 / 6),
        ("cat cat", ["cat"], 0.0, 2 / 3),
        ("", ["cat"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
    ],
)
def test_exact_match_and_f1(answer, references, exact_match, f1):
    assert score("exact_match", answer, references) == exact_match
    assert score("f1", answer, references) == pytest.approx(f1)


def test_exact_is_the_text_itself():
    assert score("exact", " the cat ", ["cat", "the cat"]) == 1.0
    assert score("exact", "The cat", ["the cat"]) == 0.0


def test_chinese_is_compared_by_characters():
    assert score("f1", "模型很好。", ["模型非常好"], CHINESE) == pytest.approx(2 * 3 / (4 + 5))
    assert score("f1", "模型很好。", ["模型非常好"]) == 0.0
    assert token_f1(list("ab"), list("ab")) == 1.0


def test_rouge():
    pytest.importorskip("rouge_score")
    # 2 of 3 words, 1 of 2 pairs, the longest common subsequence has 2.
    assert score("rouge1", "the cat sat", ["the cat ran"]) == pytest.approx(2 / 3)
    assert score("rouge2", "the cat sat", ["the cat ran"]) == pytest.approx(1 / 2)
    assert score("rougeL", "the cat sat", ["sat the dog", "the cat"]) == pytest.approx(4 / 5)
    assert score("rouge1", "cats running", ["cat runs"], Wording(stemmer=True)) == 1.0
    assert score("rouge1", "cats running", ["cat runs"]) == 0.0
    assert score("rougeL", "模型很好", ["模型非常好"], CHINESE) == pytest.approx(2 * 3 / 9)
    assert "Porter's stemmer" in signature("rougeL", Wording(stemmer=True), [1])
    assert "characters, no stemmer" in signature("rougeL", CHINESE, [1])


def test_bleu_of_all_examples_is_that_of_the_package():
    sacrebleu = pytest.importorskip("sacrebleu")
    answers = ["the cat sat on the mat here", "a dog runs fast today ok", "hello"]
    references = [
        ["the cat is on the mat here", "cat on mat"],
        ["the dog runs fast today"],
        ["hello there"],
    ]
    rows = [compared("bleu", *pair, ENGLISH) for pair in zip(answers, references, strict=True)]
    found = measure("bleu", np.stack(rows))
    streams = [[some[0] for some in references], ["cat on mat", None, None]]
    package = sacrebleu.metrics.BLEU()
    assert found.value == pytest.approx(package.corpus_score(answers, streams).score)
    assert found.method == "bootstrap"
    assert found.standard_error > 0
    assert signature("bleu", ENGLISH, [2, 1, 1]) == f"sacrebleu {package.get_signature()}"
    assert "nrefs:1|" in signature("bleu", ENGLISH, [1, 1])
    assert "tok:zh" in signature("bleu", CHINESE, [1])
    # Characters of Chinese: 3 of 4, 1 of 3 pairs.
    assert compared("bleu", "模型很好", ["模型非常好"], CHINESE).tolist()[2:4] == [3, 1]


def test_perplexity_is_of_all_tokens_together():
    rows = np.array([[math.log(2) * 10, 10], [math.log(8) * 30, 30]])
    found = measure("perplexity", rows)
    assert found.value == pytest.approx(2 ** (0.25 * 1 + 0.75 * 3))
    assert measure("loss", rows).value == pytest.approx(2.5 * math.log(2))
    assert (found.method, found.examples) == ("bootstrap", 2)
    assert math.isnan(measure("perplexity", rows[:1]).standard_error)
    assert not metric_of("perplexity").higher_is_better
    assert metric_of("first_5").higher_is_better


def test_the_error_of_hits_is_that_of_a_mean():
    found = measure("accuracy", np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    assert (found.value, found.method, found.examples) == (0.75, "mean", 4)
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_first_k():
    assert [first_k(name) for name in ("first_5", "first_10", "first_0", "first", "f1")] == [
        *[5, 10],
        *[0, 0, 0],
    ]
    assert all(not first_k(name) for name in METRICS)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_packages(["f1", "accuracy"])
    with pytest.raises(UserError, match=r"'bleu' needs the package sacrebleu, .*\[eval\]"):
        check_packages(["f1", "bleu"])
    with pytest.raises(UserError, match="'rougeL' needs the package rouge-score"):
        check_packages(["rougeL"])


def test_other_metrics_import_no_package(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert name.partition(".")[0] not in ("sacrebleu", "rouge_score")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert score("f1", "a cat", ["cat"]) == 1.0
    assert signature("f1", ENGLISH, [1]) == ""
