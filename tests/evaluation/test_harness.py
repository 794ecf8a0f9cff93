"""The adapter under lm-evaluation-harness itself; skipped where that is not installed."""

import json
import types

import pytest

from glm_jax.errors import UserError
from tests.evaluation.models import SPECIAL, TOKENIZER, random_model

lm_eval = pytest.importorskip("lm_eval")

from glm_jax.evaluation.harness import Harness  # noqa: E402 - not without lm_eval

START = [SPECIAL.gmask, SPECIAL.start]


def requests(*arguments):
    return [types.SimpleNamespace(args=one) for one in arguments]


@pytest.mark.parametrize("causal", [False, True])
def test_a_continuation_has_the_score_of_the_model(causal):
    lm = random_model(causal)
    asked = [("In the beginning", " God made the light"), ("", "God said"), ("a [MASK]", " b")]
    found = Harness(lm).loglikelihood(requests(*asked))
    for (context, text), (score, greedy) in zip(asked, found, strict=True):
        before, whole = TOKENIZER.encode(context), TOKENIZER.encode(context + text)
        assert whole[: len(before)] == before
        prompt = [*START, *before] if causal else [SPECIAL.cls, *before, SPECIAL.gmask]
        (wanted,) = lm.score(prompt, [whole[len(before) :]])
        assert score == pytest.approx(wanted, abs=1e-4)
        assert greedy == lm.predicts([prompt], [whole[len(before) :]])[0]


@pytest.mark.parametrize("causal", [False, True])
def test_a_text_is_scored_with_its_first_token(causal):
    lm = random_model(causal)
    text = "In the beginning, God created the heavens and the earth. " * 6
    ids = TOKENIZER.encode(text)
    assert len(ids) > 64
    long, one, none = Harness(lm).loglikelihood_rolling(requests((text,), ("God",), ("",)))
    assert none == 0
    (first,) = lm.score(START if causal else [SPECIAL.cls, SPECIAL.gmask], [ids[:1]])
    rest = lm.token_log_probabilities(ids, prefix_ids=START if causal else [SPECIAL.cls])
    assert long == pytest.approx(first + float(rest.sum()), rel=1e-5)
    god = TOKENIZER.encode("God")
    assert len(god) == 1
    assert one == pytest.approx(
        lm.score(START if causal else [SPECIAL.cls, SPECIAL.gmask], [god])[0], abs=1e-4
    )


@pytest.mark.parametrize("causal", [False, True])
def test_texts_are_generated_until(causal):
    lm = random_model(causal)
    harness = Harness(lm, batch_size=2)
    greedy = {"until": ["\n"], "max_gen_toks": 8}
    asked = [("In the beginning", greedy), ("God", greedy), ("And he said to him", greedy)]
    found = harness.generate_until(requests(*asked))
    for (context, _), answer in zip(asked, found, strict=True):
        if causal:
            assert answer == lm.complete(context, max_new_tokens=8).partition("\n")[0]
        else:
            ids = [SPECIAL.cls, *TOKENIZER.encode(context), SPECIAL.gmask]
            (new,) = lm.fill_blanks(ids, max_new_tokens=8)
            before = TOKENIZER.encode(context)
            text = TOKENIZER.decode([*before, *new], skip_special=True)
            assert answer == text[len(context) :].partition("\n")[0]
    letter = found[0].strip()[1]
    (cut,) = harness.generate_until(
        requests(("In the beginning", {"until": letter, "max_gen_toks": 8}))
    )
    assert cut == found[0].partition(letter)[0]
    with pytest.raises(UserError, match=r"has 'temprature' \(did you mean 'temperature'\?\)"):
        harness.generate_until(requests(("God", {"temprature": 1})))
    harness.generate_until(requests(("and " * 90, {"max_gen_toks": 4})))
    assert harness.cut == 1


def test_a_local_task_is_evaluated(tmp_path, monkeypatch):
    """Multiple choice of a custom task, YAML and JSON lines: what the model's scores say."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.tasks import TaskManager

    lines = [
        {"q": "In the beginning God", "options": ["said", "made"], "gold": 1},
        {"q": "And he went to the", "options": ["land", "a"], "gold": 0},
        {"q": "Noah was five hundred", "options": ["years", "men"], "gold": 0},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'mine.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\n"
        "doc_to_choice: '{{options}}'\ndoc_to_target: gold\ntarget_delimiter: ' '\n"
        "metric_list: [{metric: acc}]\n"
    )
    lm = random_model()
    found = lm_eval.simple_evaluate(
        model=Harness(lm),
        tasks=["mine"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    right = 0
    for line in lines:
        before = TOKENIZER.encode(line["q"])
        answers = [TOKENIZER.encode(f"{line['q']} {one}")[len(before) :] for one in line["options"]]
        scores = lm.score([SPECIAL.cls, *before, SPECIAL.gmask], answers)
        right += scores[line["gold"]] > scores[1 - line["gold"]]
    assert found["results"]["mine"]["acc,none"] == pytest.approx(right / 3)


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(UserError, match="the checkpoint holds no tokenizer"):
        Harness(types.SimpleNamespace(tokenizer=None))
