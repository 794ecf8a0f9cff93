import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation.beam_rows import search_blanks, search_texts
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import BeamSearch, Limits, Marks


def search(lm, rows, limit, end_ids=(6,), mask_ids=(8,), **options):
    return search_blanks(
        Engine(lm.config, lm.params),
        rows,
        marks=Marks(mask_ids, 5),
        limits=Limits(end_ids, limit),
        search=BeamSearch(**options),
    )


def plain_search(log_probabilities, num_beams, limit, end_ids, length_penalty):
    """The search in Python: beams as lists, every step from the whole row again.

    log_probabilities: ids so far -> [V]. Returns the best answer and what it is worth.
    """
    beams, finished = [([], 0.0)], []
    for step in range(limit):
        found = [
            (total + score, ids, token)
            for ids, total in beams
            for token, score in enumerate(log_probabilities(ids))
        ]
        found = sorted(found, key=lambda one: -one[0])[: num_beams * (1 + len(end_ids))]
        ends = [
            (t / max(step, 1) ** length_penalty, i) for t, i, k in found[:num_beams] if k in end_ids
        ]
        finished = sorted([*finished, *ends], key=lambda one: -one[0])[:num_beams]
        beams = [([*i, k], t) for t, i, k in found if k not in end_ids][:num_beams]
        best = found[0][0] / max(step, 1) ** length_penalty
        if len(finished) == num_beams and finished[-1][0] >= best:
            beams = []
            break
    finished += [(total / limit**length_penalty, ids) for ids, total in beams]
    worth, ids = max(finished, key=lambda one: one[0])
    return ids, worth


def row_log_probabilities(lm, tokens, positions, blocks, prefix, size=64):
    length, places = len(tokens), np.arange(size)
    fields = {"tokens": tokens, "positions": positions, "block_positions": blocks}
    batch = {k: np.pad(np.array(v, np.int32), (0, size - length))[None] for k, v in fields.items()}
    ends = np.where(places < length, np.maximum(prefix, places + 1), 0).astype(np.int32)
    zeros = np.zeros((1, size), np.int32)
    batch |= {"attend_start": zeros, "attend_end": ends[None], "targets": zeros}
    batch["loss_weights"] = np.zeros((1, size), np.float32)
    scores = np.asarray(lm.logits(batch))[0, length - 1].astype(np.float64)
    return scores - np.log(np.exp(scores).sum())


# The nightly ones differ in the number of beams: a program each.
RUNS = [pytest.param(n, marks=() if n in (2, 3, 4) else pytest.mark.nightly) for n in range(6)]


@pytest.mark.parametrize("number", RUNS)
def test_the_published_search(lm, cases, number):
    """Part A is padded inside, as published; scores as close as the vectors' README says."""
    case = cases["beam_search"]
    run = case["runs"][number]
    length = case["padded_source_length"]
    rows = [row + [case["pad_id"]] * (length - len(row)) for row in case["source_rows"]]
    found = search(
        lm,
        rows,
        run["max_target_length"],
        num_beams=run["num_beams"],
        length_penalty=run["length_penalty"],
        min_new_tokens=run["min_target_length"],
        no_repeat_ngram=run["no_repeat_ngram_size"],
    )
    assert [answer.ids for (answer,) in found] == run["best_sequences"]
    assert [answer.score for (answer,) in found] == pytest.approx(run["best_scores"], abs=1e-4)


def test_later_blanks_see_the_best_answers_before_them(lm, cases):
    """Two rows of three blanks and one of one, against the plain search on whole rows."""
    limit, penalty = 6, 0.7
    contexts = {case["id"]: case["context"] for case in cases["greedy"]}
    rows = [contexts["three_MASK"], contexts["MASK_sMASK_gMASK"], contexts["one_MASK"]]
    masks = (2, 7, 8)
    options = {"num_beams": 4, "length_penalty": penalty}
    found = search(lm, rows, limit, mask_ids=masks, **options)
    assert [len(answers) for answers in found] == [3, 3, 1]
    for row, answers in zip(rows, found, strict=True):
        tokens, positions, blocks = list(row), list(range(len(row))), [0] * len(row)
        for blank, answer in zip(np.flatnonzero(np.isin(row, masks)), answers, strict=True):

            def log_probabilities(ids, t=tokens, p=positions, b=blocks, blank=blank, row=row):
                steps = range(1, len(ids) + 2)
                places = [*p, *[blank] * len(steps)]
                return row_log_probabilities(lm, [*t, 5, *ids], places, [*b, *steps], len(row))

            ids, worth = plain_search(log_probabilities, 4, limit, [6], penalty)
            assert answer.ids == ids
            assert answer.score == pytest.approx(worth, abs=1e-4)
            fed = [5, *ids[: limit - 1]]
            tokens, positions = [*tokens, *fed], [*positions, *[blank] * len(fed)]
            blocks = [*blocks, *range(1, len(fed) + 1)]


def test_a_text_is_continued_as_by_the_plain_search(causal_lm):
    prompts = [[5, 9, 33], [7], [11, 3, 90, 21, 60, 2, 8]]
    found = search_texts(
        Engine(causal_lm.config, causal_lm.params),
        prompts,
        limits=Limits([3, 17], 5),
        search=BeamSearch(3, length_penalty=1.0),
    )
    for prompt, answer in zip(prompts, found, strict=True):

        def log_probabilities(ids, prompt=prompt):
            row = [*prompt, *ids]
            return row_log_probabilities(causal_lm, row, range(len(row)), [0] * len(row), 0)

        ids, worth = plain_search(log_probabilities, 3, 5, [3, 17], 1.0)
        assert answer.ids == ids
        assert answer.score == pytest.approx(worth, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1; got 0"),
        ({"num_beams": 65}, "num_beams=65 is too much for a vocabulary of 128; at most 42"),
        ({"num_beams": 2, "length_penalty": float("nan")}, "length_penalty must be a finite"),
        (
            {"num_beams": 2, "temperature": 0.5},
            "num_beams=2 searches and does not sample: .* got 0.5",
        ),
        ({"num_beams": 2, "max_total_tokens": 9}, "max_total_tokens is not for num_beams above 1"),
        ({"min_new_tokens": -1}, "min_new_tokens must be at least 0; got -1"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram must be at least 0"),
        ({"max_total_tokens": 0}, "max_total_tokens must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_searched_is_named(lm, options, message):
    with pytest.raises(UserError, match=message):
        lm.fill_blanks([1, 2, 30], mask_ids=[2], start_id=5, end_ids=[6, 0], **options)
