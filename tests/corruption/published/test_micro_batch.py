"""Whole micro-batches of the original, draw for draw."""

import random

import numpy as np

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.corruption.published import TextRow, build_micro_batch, collate

MODES = {"bert": SPAN, "sentence": SENTENCE, "gpt": DOCUMENT}


def replay(case):
    """A generator that stands where the original's stood behind the last draw."""
    rng = random.Random(case["python_random_seed"])
    for kind, *arguments, value in case["rng_log"]:
        if kind == "random":
            assert rng.random() == value
        elif kind == "choices":  # of a span length; one draw whatever the weights
            rng.random()
        elif kind == "shuffle":
            order = list(range(len(value)))
            rng.shuffle(order)
            assert order == value
        else:
            assert getattr(rng, kind)(*arguments[0]) == value
    return rng


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(30))


def test_golden_batches(number, golden, toy_rules):
    cases = golden("data/batches.json")["cases"]
    assert len(cases) == 30
    case = cases[number]
    rules = toy_rules(case["options"], case["max_seq_length"], case["eos_id"])
    rows = [TextRow(np.array(r["tokens"]), np.array(r["loss_mask"])) for r in case["input"]]
    rng = random.Random(case["python_random_seed"])
    # The global generator of the original, which hides tokens, stood at the start of seed 1.
    made = build_micro_batch(rows, rules, rng, hide=random.Random(1))
    assert made.objective == MODES[case["mode"]]
    assert len(made.examples) == case["rows_in"]
    examples = [fields for row in made.examples for fields in row]
    assert len(examples) == case["rows_out"]
    found = collate(examples)
    assert set(found) == set(case["output"])
    for name, value in case["output"].items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    # Not one draw more or less.
    assert rng.getstate() == replay(case).getstate()
