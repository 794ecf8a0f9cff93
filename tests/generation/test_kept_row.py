"""A cache that is kept from prompt to prompt gives what a fresh one gives."""

import numpy as np
import pytest

from glm_jax.generation import kept_row
from glm_jax.generation.continuation import generate_rows
from glm_jax.generation.engine import Engine
from glm_jax.generation.kept_row import KeptRow
from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.sampling import Sampling
from tests.generation.chat_stand_ins import EOS, GMASK, SOP, model

GREEDY = Sampling()
LIMITS = Limits([EOS], 12)
DRAWS = np.random.default_rng(0)


def some(count):
    return DRAWS.integers(0, 200, count).tolist()


@pytest.fixture(scope="module")
def engine():
    lm = model(max_positions=2048)
    return Engine(lm.config, lm.params)


@pytest.fixture
def prefilled(monkeypatch, engine):
    """Numbers of tokens that were kept and that the prompt had, of each call of `resume`."""
    calls = []
    resume = engine.resume

    def counted(slots, prompts, kept, room):
        calls.append((kept[0], len(prompts[0].ids)))
        return resume(slots, prompts, kept, room)

    monkeypatch.setattr(engine, "resume", counted)
    return calls


def fresh(engine, ids, limits=LIMITS, sampling=GREEDY):
    return generate_rows(engine, [ids], limits=limits, sampling=sampling)[0]


def cache_of(slots, count):
    """Keys and values of the first `count` slots of the row, of all layers."""
    return [
        np.asarray(part)[0, :, :count] for one in slots.caches for part in (one.keys, one.values)
    ]


def test_turns_equal_fresh_prompts(engine, prefilled):
    row, ids = KeptRow(engine), some(7)
    for length in (5, 30, 200, 3):
        found = row.continue_(ids, LIMITS, GREEDY)
        assert found.ids == fresh(engine, ids)
        assert len(found.ids) == 12
        assert found.ended == "length"
        # The last id was chosen, not fed.
        assert row.cached == [*ids, *found.ids][:-1]
        ids = [*ids, *found.ids, *some(length)]
    assert [kept for kept, _ in prefilled] == [0, 7 + 11, 24 + 11, 66 + 11]
    assert [total for _, total in prefilled] == [7, 24, 66, 278]


def test_the_caches_are_those_of_a_fresh_prompt(engine):
    row, ids = KeptRow(engine), some(40)
    found = row.continue_(ids, LIMITS, GREEDY)
    ids = [*ids, *found.ids, *some(600)]  # more than a chunk behind what is kept
    row.continue_(ids, Limits([EOS], 1), GREEDY)
    other = KeptRow(engine)
    other.continue_(ids, Limits([EOS], 1), GREEDY)
    assert row.cached == other.cached == ids
    pairs = zip(cache_of(row._slots, len(ids)), cache_of(other._slots, len(ids)), strict=True)
    for one, fresh_one in pairs:
        np.testing.assert_allclose(one, fresh_one, atol=1e-5, rtol=0)


def test_a_changed_history_cuts_the_cache_back(engine, prefilled):
    row, ids = KeptRow(engine), some(50)
    row.continue_(ids, LIMITS, GREEDY)
    changed = [*ids[:30], 201, *ids[31:40]]
    assert row.continue_(changed, LIMITS, GREEDY).ids == fresh(engine, changed)
    # Shorter than what is cached, and a beginning of it.
    again = changed[:20]
    assert row.continue_(again, LIMITS, GREEDY).ids == fresh(engine, again)
    assert row.continue_(again, LIMITS, GREEDY).ids == fresh(engine, again)
    assert [kept for kept, _ in prefilled] == [0, 30, 19, 19]


def test_draws_are_those_of_a_fresh_prompt(engine):
    row, ids = KeptRow(engine), some(9)
    how = Sampling(1.0, top_p=0.9, seed=3, repetition_penalty=1.5)
    for _ in range(3):
        found = row.continue_(ids, LIMITS, how)
        assert found.ids == fresh(engine, ids, sampling=how)
        ids = [*ids, *found.ids, *some(4)]


def test_an_end_id_ends_and_is_not_part_of_the_answer(engine):
    row, ids = KeptRow(engine), some(9)
    whole = fresh(engine, ids)
    end = next(id_ for id_ in whole[3:] if id_ not in whole[:3])
    limits = Limits([EOS, end], 12)
    found = row.continue_(ids, limits, GREEDY)
    assert found == (whole[: whole.index(end)], "end")
    assert row.cached == [*ids, *found.ids]


def test_the_cache_grows_in_buckets_up_to_the_context(engine):
    row, sizes = KeptRow(engine), []
    ids = some(10)
    for length in (480, 500, 900, 130):
        ids = [*ids, *some(length)]
        assert row.continue_(ids, Limits([], 3), GREEDY).ids == fresh(engine, ids, Limits([], 3))
        sizes.append(row._slots.caches[0].keys.shape[2])
    assert sizes == [512, 1024, 2048, 2048]
    # A last chunk that would end behind the cache begins earlier.
    ids = [*ids, *some(2048 - len(ids) - 3)]
    assert row.continue_(ids, Limits([], 3), GREEDY).ids == fresh(engine, ids, Limits([], 3))
    assert row._slots.caches[0].keys.shape[2] == 2048


def test_stopping_keeps_what_was_computed(engine, prefilled, monkeypatch):
    monkeypatch.setattr(kept_row, "CHUNK", 64)
    row, ids, seen = KeptRow(engine), some(200), []
    found = row.continue_(ids, LIMITS, GREEDY, seen.append, stop=lambda: len(seen) == 4)
    assert found == (fresh(engine, ids)[:4], "stopped")
    assert row.cached == [*ids, *found.ids][:-1]
    # Within the prefill, after two chunks.
    asked = iter([False, False, True])
    row.forget()
    assert row.cached == []
    assert row.continue_(ids, LIMITS, GREEDY, stop=lambda: next(asked)) == ([], "stopped")
    assert row.cached == ids[:128]
    prefilled.clear()
    assert row.continue_(ids, LIMITS, GREEDY).ids == fresh(engine, ids)
    assert prefilled == [(128, 193), (192, 200)]


def test_what_on_id_raises_leaves_the_row_usable(engine):
    row, ids = KeptRow(engine), some(8)
    whole = fresh(engine, ids)

    def interrupt(id_):
        if id_ == whole[2]:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        row.continue_(ids, LIMITS, GREEDY, interrupt)
    assert row.cached[: len(ids)] == ids
    assert row.continue_(ids, LIMITS, GREEDY).ids == whole


def test_an_interrupt_within_a_step_leaves_an_empty_row(engine, monkeypatch):
    row, ids = KeptRow(engine), some(8)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", lambda slots, steps: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            row.continue_(ids, LIMITS, GREEDY)
    assert row.cached == []
    assert row.continue_(ids, LIMITS, GREEDY).ids == fresh(engine, ids)


@pytest.mark.parametrize("projection", [None, 16])
def test_a_trained_prefix_is_seen_by_what_is_prefilled_later(projection):
    lm = model(prefix_length=3, prefix_projection=projection)
    engine = Engine(lm.config, lm.params)
    row, ids = KeptRow(engine), some(70)
    row.continue_(ids, LIMITS, GREEDY)
    ids = [*ids[:66], *some(9)]
    assert row.continue_(ids, LIMITS, GREEDY).ids == fresh(engine, ids)


def test_a_model_that_fills_blanks_keeps_nothing():
    lm = model(position_encoding="rotary_block")
    engine, marks = Engine(lm.config, lm.params), Marks((GMASK,), SOP)
    row, ids = KeptRow(engine, marks), [*some(9), GMASK, SOP]
    seen = []
    found = row.continue_(ids, LIMITS, GREEDY, seen.append)
    options = {"limits": LIMITS, "sampling": GREEDY, "marks": marks}
    assert found.ids == seen == generate_rows(engine, [ids], **options)[0]
    assert row.cached == []
