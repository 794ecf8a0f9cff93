import pytest

from glm_jax.inference.beam_rows import BeamSearch, search_blanks


def search(lm, rows, limit, end_ids=(6,), mask_ids=(8,), **options):
    return search_blanks(
        lm.config,
        lm.params,
        rows,
        mask_ids=mask_ids,
        start_id=5,
        end_ids=end_ids,
        max_new_tokens=limit,
        search=BeamSearch(**options),
    )


@pytest.mark.parametrize("number", range(6))
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
