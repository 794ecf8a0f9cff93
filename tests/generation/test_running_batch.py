"""Rows enter and leave a running batch; each gets the same ids alone and in any company."""

import weakref

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import BeamSearch, Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.running_batch import RunningBatch, code_for, on_host_all
from glm_jax.generation.running_programs import DRAWS, EVERYTHING, GREEDY, LOWERED
from glm_jax.generation.sampling import Sampling

LIMITS = Limits([3], 12)
DRAWN = np.random.default_rng(0)


def some(count):
    return DRAWN.integers(4, 90, count).tolist()


@pytest.fixture(scope="module")
def texts(causal_lm):
    """A compiled batch of a causal model: 4 slots of 96, chunks of 16."""
    engine = Engine(causal_lm.config, causal_lm.params)
    batch = RunningBatch(engine, slots=4, size=90, width=16, kept=2)
    batch.compile()
    return batch


@pytest.fixture(scope="module")
def blanks(lm):
    batch = RunningBatch(Engine(lm.config, lm.params), slots=4, size=64, blanks=4)
    batch.compile()
    return batch


def read(batch, prompt, copies=0):
    reading = batch.begin(prompt, copies)
    while not reading.complete:
        batch.read(reading)
    return reading


def alone(batch, prompt, copies=0):
    """The ids of a row when nobody else is there."""
    slot, found = batch.enter(read(batch, prompt, copies)), []
    while True:
        told = on_host_all(batch.step())
        if told.grew[slot]:
            found.append(int(told.ids[slot]))
        if told.ended[slot]:
            batch.leave([slot])
            return found


def together(batch, prompts, draws):
    """All rows, each read, entered and stepped at moments that `draws` chooses."""
    waiting, reading, inside = list(range(len(prompts))), [], {}
    found = [[] for _ in prompts]
    while waiting or reading or inside:
        what = draws.integers(0, 4)
        if what == 0 and waiting:
            index = waiting.pop(int(draws.integers(0, len(waiting))))
            reading.append((index, batch.begin(prompts[index])))
        if what == 1 and reading:
            index, one = reading[int(draws.integers(0, len(reading)))]
            if not one.complete:
                batch.read(one)
            if one.complete and batch.free:
                reading = [pair for pair in reading if pair[0] != index]
                inside[batch.enter(one, alternatives=bool(draws.integers(0, 2)))] = index
        if what >= 2 and inside:
            told = on_host_all(batch.step())
            for slot, index in list(inside.items()):
                if told.grew[slot]:
                    found[index].append(int(told.ids[slot]))
                if told.ended[slot]:
                    batch.leave([slot])
                    del inside[slot]
    return found


HOWS = [
    Sampling(),
    Sampling(temperature=2.0, seed=5),
    Sampling(),
    Sampling(1.5, top_k=7, seed=2),
    Sampling(repetition_penalty=1.7),
    Sampling(),
    Sampling(3.0, top_p=0.8, seed=2**40, min_new_tokens=6),
]
TEXTS = [
    Prompt(some(length), limits, how)
    for length, how, limits in zip(
        (1, 2, 17, 33, 40, 64, 7),
        HOWS,
        (LIMITS, LIMITS, Limits([], 9), LIMITS, Limits([3, 8], 20), Limits([], 20), LIMITS),
        strict=True,
    )
]
# Some begin alike: what is kept of one serves the other.
TEXTS.append(Prompt([*TEXTS[5].ids[:40], *some(9)], Limits([], 8), Sampling()))
BLANKS = [
    Prompt([1, 2, 30, 2, 31], Limits([6, 0], 4), Sampling(), [1, 3], 5),
    Prompt([1, 2], Limits([6], 9, 7), Sampling(temperature=3.0, seed=2), [1], 5),
    Prompt([2, 2, 2, 50], Limits([], 3), Sampling(), [2, 0, 1], 5),
    Prompt([1, 60, 61, 62, 2], Limits([6], 5), Sampling(1.5, top_p=0.8, seed=9), [4], 5),
    Prompt([1, 44, 2], Limits([6], 5), Sampling(repetition_penalty=2.0), [2], 5),
]


def of(request, name):
    return request.getfixturevalue(name), {"texts": TEXTS, "blanks": BLANKS}[name]


@pytest.mark.parametrize("kind", ["texts", "blanks"])
def test_a_row_alone_gets_what_the_engine_gives(request, kind):
    batch, prompts = of(request, kind)
    engine = batch.engine
    expected = engine.chosen(engine.run(engine.start(prompts, batch._room)))[: len(prompts)]
    assert all(expected)
    assert [alone(batch, prompt) for prompt in prompts] == expected


@pytest.mark.parametrize("kind", ["texts", "blanks"])
@pytest.mark.parametrize("times", [15, pytest.param(400, marks=pytest.mark.nightly)])
def test_company_changes_nothing_and_compiles_nothing(request, kind, times, compiled):
    batch, prompts = of(request, kind)
    batch._known = []
    expected = [alone(batch, prompt) for prompt in prompts]
    compiled.clear()
    for seed in range(times):
        assert together(batch, prompts, np.random.default_rng(seed)) == expected
    assert compiled == []
    assert batch.free == [0, 1, 2, 3]


def test_logits_are_the_same_bits_in_any_company(texts):
    """Not only the best ids: the log-probability of each chosen id, to the last bit."""

    def scores(company):
        slots = [texts.enter(read(texts, one), alternatives=True) for one in company]
        found = []
        for _ in range(8):
            told = on_host_all(texts.step())
            found.append((told.ids[slots[-1]], told.scores.chosen[slots[-1]].tobytes()))
        texts.leave(slots)
        return found

    expected = scores([TEXTS[5]])
    assert scores([TEXTS[1], TEXTS[3], TEXTS[4], TEXTS[5]]) == expected
    assert scores([TEXTS[2], TEXTS[5]]) == expected


def test_what_an_earlier_prompt_left_is_not_read_again(texts):
    texts._known = []
    first = TEXTS[5]
    assert texts.begin(first).reused == 0
    expected = alone(texts, first)
    # 63 ids are read, 48 of them in whole chunks.
    assert texts.begin(first).reused == 48
    assert alone(texts, first) == expected
    assert texts.begin(TEXTS[7]).reused == 32
    longer = Prompt([*first.ids, *some(10)], LIMITS, Sampling())
    assert texts.begin(longer).reused == 48
    alone(texts, longer)
    assert texts.begin(first).reused == 48
    # The longer prompt took the shorter one's room; two others push it out.
    for _ in range(2):
        read(texts, Prompt(some(20), LIMITS, Sampling()))
    assert texts.begin(first).reused == 0


def test_a_model_that_fills_blanks_keeps_nothing(blanks):
    alone(blanks, BLANKS[3])
    assert blanks.begin(BLANKS[3]).reused == 0


def test_scores_of_a_prompt_are_its_log_probabilities(texts, causal_lm):
    texts._known = []
    ids = TEXTS[3].ids
    reading, chosen, best = texts.begin(TEXTS[3]), [], []
    while not reading.complete:
        start = reading.done
        found = on_host_all(texts.read(reading, alternatives=True))
        chosen.extend(found.chosen[: reading.done - start])
        best.extend(found.ids[: reading.done - start, 0])
    expected = causal_lm.token_log_probabilities(ids, prefix_ids=[])
    np.testing.assert_allclose(chosen, expected, atol=2e-6)
    logits = np.asarray(causal_lm.logits(_batch(ids)))[0]
    assert best == logits[:-1].argmax(-1).tolist()


def _batch(ids):
    n = len(ids)
    zeros = np.zeros((1, n), np.int32)
    return {
        "tokens": np.array([ids], np.int32),
        "targets": zeros,
        "loss_weights": np.zeros((1, n), np.float32),
        "positions": np.arange(n, dtype=np.int32)[None],
        "block_positions": zeros,
        "attend_start": zeros,
        "attend_end": np.arange(1, n + 1, dtype=np.int32)[None],
    }


def test_copies_draw_differently_and_as_one_call_of_generate_draws(texts, causal_lm):
    prompt = Prompt([5, 9, 33], Limits([], 9), Sampling(temperature=3.0, seed=7))
    expected = causal_lm.generate([prompt.ids] * 3, 9, temperature=3.0, eos_ids=[], seed=7)
    assert [alone(texts, prompt, copies) for copies in range(3)] == expected
    assert expected[0] != expected[1]


def test_a_row_that_leaves_before_its_end_makes_room(texts):
    slots = [texts.enter(read(texts, prompt)) for prompt in TEXTS[:4]]
    assert texts.free == []
    texts.step()
    texts.leave([slots[1]])
    assert texts.free == [slots[1]]
    told = on_host_all(texts.step())
    assert not told.grew[slots[1]]
    texts.leave(slots)
    assert texts.free == [0, 1, 2, 3]


def test_blanks_are_filled_in_the_order_given(blanks, lm):
    """Part B of the order [2, 0] holds the second blank's answer first."""
    ids, limits = [1, 2, 30, 2, 31], Limits([6, 0], 4)
    ids_chosen = alone(blanks, Prompt(ids, limits, Sampling(), [3, 1], 5))
    first = ids_chosen[: next(i for i, id_ in enumerate(ids_chosen) if id_ in (6, 0) or i == 3) + 1]
    only = alone(blanks, Prompt(ids, limits, Sampling(), [3], 5))
    assert first == only


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ids": [5] * 90}, "90 tokens and 12 new ones do not fit the 96 of a row"),
        ({"limits": Limits(range(9), 3)}, "9 end ids; at most 8"),
        ({"how": BeamSearch(4)}, "no code for beam search"),
        ({"how": Sampling(no_repeat_ngram=2)}, "no code for beam search and no_repeat_ngram"),
    ],
)
def test_what_fits_no_slot_is_refused(texts, changes, sentence):
    values = {"ids": [5], "limits": LIMITS, "how": Sampling(), **changes}
    with pytest.raises(UserError, match=sentence):
        texts.check(Prompt(**values))


def test_more_blanks_than_a_slot_has_are_refused(blanks):
    with pytest.raises(UserError, match="may have 4 blanks; this one has 5"):
        blanks.check(Prompt([2] * 5, Limits([6], 2), Sampling(), range(5), 5))


@pytest.mark.parametrize(
    ("hows", "code"),
    [
        ([], GREEDY),
        ([Sampling(), Sampling(seed=3)], GREEDY),
        ([Sampling(), Sampling(0.5)], DRAWS),
        ([Sampling(top_k=2), Sampling(0.5)], DRAWS),
        ([Sampling(), Sampling(0.5, top_k=2)], EVERYTHING),
        ([Sampling(0.5, top_p=0.9), Sampling(min_new_tokens=1)], EVERYTHING),
        ([Sampling(0.5), Sampling(repetition_penalty=1.1)], LOWERED),
        ([Sampling(min_new_tokens=1)], LOWERED),
    ],
)
def test_the_least_code_that_serves_all(hows, code):
    assert code_for([None, *[Prompt([1], LIMITS, how) for how in hows]]) == code


def test_new_caches_are_allocated_when_the_old_are_gone(texts, monkeypatch):
    old = [
        weakref.ref(leaf) for layer in texts._slots.caches for leaf in (layer.keys, layer.values)
    ]
    alone(texts, TEXTS[3])
    old += [weakref.ref(layer.keys) for known in texts._known for layer in known.caches]
    old += [weakref.ref(layer.keys) for layer in texts._none]
    empty, held = texts._empty, []

    def spied(slots):
        held.extend(one for one in old if one() is not None)
        return empty(slots)

    monkeypatch.setattr(texts, "_empty", spied)
    assert texts.intact
    texts.reset()
    assert held == []
    assert len(old) > 8
    assert texts.intact
    assert alone(texts, TEXTS[0]) == alone(texts, TEXTS[0])


def test_rows_are_not_intact_when_a_program_has_taken_their_arrays(texts):
    texts._slots.caches[1].values.delete()
    assert not texts.intact
    texts.reset()
    assert texts.intact


def test_what_is_kept_of_a_prompt_can_be_forgotten(texts):
    texts.reset()
    one, other = read(texts, TEXTS[3]).prompt, read(texts, TEXTS[5]).prompt
    texts.forget(one)
    assert texts.begin(one).reused == 0
    assert texts.begin(other).reused == 48
