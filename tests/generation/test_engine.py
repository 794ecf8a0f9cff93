"""Rows join and leave between any two steps, and each gets what it gets alone."""

import jax
import numpy as np
import pytest

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import BeamSearch, Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Room
from glm_jax.models.params import bind, create_prefix
from glm_jax.sharding.mesh import make_mesh

ROOM = Room(size=64, answers=32, blanks=4, ends=2)
TEXTS = [
    Prompt([5, 9, 33], Limits([3], 9), Sampling()),
    Prompt([7], Limits([], 5), Sampling(temperature=5.0, seed=4)),
    Prompt([11, 3, 90, 21, 60, 2, 8], Limits([17, 3], 12), Sampling(2.0, top_k=9, seed=1)),
    Prompt([40] * 20, Limits([1], 7), Sampling(no_repeat_ngram=1, min_new_tokens=7)),
    Prompt([8, 8], Limits([2], 6), Sampling(repetition_penalty=3.0)),
]
BLANKS = [
    Prompt([1, 2, 30, 2, 31], Limits([6, 0], 4), Sampling(), [1, 3], 5),
    Prompt([1, 2], Limits([6], 9, 7), Sampling(temperature=3.0, seed=2), [1], 5),
    Prompt([2, 2, 2, 50], Limits([], 3), Sampling(no_repeat_ngram=2), [0, 1, 2], 5),
    Prompt([1, 60, 61, 62, 2], Limits([6], 5), Sampling(1.5, top_p=0.8, seed=9), [4], 5),
    Prompt([1, 44, 2], Limits([6], 5), Sampling(repetition_penalty=2.0), [2], 5),
]


@pytest.fixture(scope="module", params=["texts", "blanks"])
def served(request):
    """An engine, prompts for it, and what each gets alone."""
    name = {"texts": "causal_lm", "blanks": "lm"}[request.param]
    lm = request.getfixturevalue(name)
    engine = Engine(lm.config, lm.params)
    prompts = TEXTS if request.param == "texts" else BLANKS
    alone = [engine.chosen(engine.run(engine.start([prompt])))[0] for prompt in prompts]
    assert all(alone)
    return engine, prompts, alone


def test_rows_beside_each_other_get_what_they_get_alone(served):
    engine, prompts, alone = served
    assert engine.chosen(engine.run(engine.start(prompts)))[: len(prompts)] == alone


def test_rows_join_and_leave_at_any_step(served):
    """Two slots for five rows: each joins where another has ended, at whatever step that is."""
    engine, prompts, alone = served
    read = engine.start(prompts, ROOM)
    slots = engine.free(read, 2)
    waiting, inside, found, steps = list(range(len(prompts))), {}, {}, 0
    while waiting or inside:
        for slot in {0, 1} - set(inside) if waiting else ():
            if waiting:
                row = waiting.pop(0)
                one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], read)
                slots, inside[slot] = engine.insert(slots, [slot], one), row
        slots, steps = engine.run(slots, 1), steps + 1
        ended = [slot for slot in inside if not slots.running[slot]]
        for slot in ended:
            found[inside.pop(slot)] = engine.chosen(slots)[slot]
        slots = engine.release(slots, ended)
    assert [found[row] for row in range(len(prompts))] == alone
    assert max(map(len, alone)) < steps < sum(map(len, alone))


def test_a_row_that_leaves_early_changes_nothing_for_the_others(served):
    engine, prompts, alone = served
    slots = engine.run(engine.start(prompts), 2)
    slots = engine.run(engine.release(slots, [0]))
    assert engine.chosen(slots)[1 : len(prompts)] == alone[1:]
    assert engine.chosen(slots)[0] == alone[0][:2]
    assert not slots.running[0]


def test_rows_of_another_program_or_room_do_not_join(served):
    engine, prompts, _ = served
    slots = engine.start(prompts, ROOM)
    with pytest.raises(ValueError, match="must be decoded by the same compiled program"):
        engine.insert(slots, [0], engine.start(prompts[:1], ROOM))


def test_what_a_search_accepts_is_what_the_next_blank_sees(lm):
    """The best answer, fed at once, leaves the caches as one token after the other does."""
    engine = Engine(lm.config, lm.params, tiles=False)
    limits = Limits([6], 5)
    found = BeamSearch(1)
    slots = engine.start([Prompt([1, 2, 30, 2], limits, found, [1, 3], 5)], least=1)
    best = engine.search(slots, 1, 0.0)
    slots = engine.accept(slots, best.ids[:, 0], best.counts[:, 0])
    greedy = engine.start([Prompt([1, 2, 30, 2], limits, Sampling(), [1, 3], 5)], least=1)
    while int(greedy.index[0]) == 0:
        greedy = engine.run(greedy, 1)
    assert slots.index.tolist() == greedy.index.tolist() == [1]
    assert slots.length.tolist() == greedy.length.tolist()
    count = int(slots.length[0])
    for one, other in zip(slots.caches, greedy.caches, strict=True):
        np.testing.assert_allclose(one.keys[:, :, :count], other.keys[:, :, :count], atol=1e-5)
    ((answer, _),) = engine.answers(greedy, [Prompt([1], limits, found, [1, 3])])
    assert best.ids[0, 0, : best.counts[0, 0]].tolist() == answer


def test_parents_are_gone_on_from(lm):
    """Of two rows the second one twice; each takes its own answer."""
    engine = Engine(lm.config, lm.params)
    limits, search = Limits([6], 4), BeamSearch(2)
    prompts = [Prompt([1, 2, row, 2], limits, search, [1, 3], 5) for row in (30, 31)]
    slots = engine.start(prompts, least=1)
    known = np.array([[40, 41, 0, 0], [50, 0, 0, 0]], np.int32)
    counts = np.array([2, 1], np.int32)
    after = engine.accept(slots, known, counts, parents=[1, 1])
    assert after.length.tolist() == [4 + 3, 4 + 2]
    # The last id of an answer that the length cuts off is not fed: start and three more.
    cut = engine.accept(engine.start(prompts, least=1), known, np.array([4, 4], np.int32))
    assert cut.length.tolist() == [4 + 4, 4 + 4]
    alone = engine.accept(engine.start(prompts[1:], least=1), known[:1], counts[:1])
    best, expected = engine.search(after, 2, 0.0), engine.search(alone, 2, 0.0)
    np.testing.assert_array_equal(best.ids[0], expected.ids[0])
    np.testing.assert_allclose(best.scores[0], expected.scores[0], rtol=1e-5)


def test_rows_go_on_with_other_prompts_on_what_their_caches_hold(causal_lm):
    """Two rows that keep different numbers of tokens: ids as alone, logits to 1e-5."""
    engine = Engine(causal_lm.config, causal_lm.params, tiles=False)
    room = ROOM._replace(size=256)  # of 64 slots a chunk of 64 would be run wholly
    before = engine.run(engine.start([TEXTS[3], TEXTS[2]], room))
    limits = Limits([3], 9)
    longer = [40] * 20 + [7, 7, 9]  # goes on behind the first prompt
    other = [*TEXTS[2].ids[:4], 61, 5]  # leaves the second one after four tokens
    prompts = [Prompt(longer, limits, Sampling()), Prompt(other, limits, Sampling(seed=5))]
    slots = engine.resume(before, prompts, [20, 4], room)
    fresh = engine.start(prompts, room)
    model = bind(engine.config, engine.params)
    np.testing.assert_allclose(
        slots.feed(model)[0][:2], fresh.feed(model)[0][:2], atol=1e-5, rtol=0
    )
    assert slots.length.tolist() == fresh.length.tolist()
    assert engine.chosen(engine.run(slots))[:2] == engine.chosen(engine.run(fresh))[:2]
    # A token that is kept by mistake is seen.
    wrong = engine.resume(engine.start([TEXTS[0]], room), prompts[:1], [3], room)
    right = engine.start(prompts[:1], ROOM)
    assert np.abs(wrong.feed(model)[0][0] - right.feed(model)[0][0]).max() > 1e-2


def test_a_trained_prefix_is_there_however_a_row_begins(causal_lm):
    """Its encoder has run once: what is compiled has the plain table, in every call."""
    asked = ModelConfig(prefix_length=3, prefix_projection=8)
    config = causal_lm.config.with_prefix(asked).resolved()
    prefix = create_prefix(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=1)
    engine = Engine(config, {**causal_lm.params, "prefix": prefix}, tiles=False)
    assert engine.params["prefix"].keys() == prefix.keys()
    room = ROOM._replace(size=256)
    prompts = [Prompt([40] * 20 + [7, 7, 9], Limits([3], 9), Sampling())]
    before = engine.run(engine.start([TEXTS[3]], room))
    resumed = engine.resume(before, prompts, [20], room)
    fresh = engine.start(prompts, room)
    model = bind(engine.config, engine.params)
    expected = fresh.feed(model)[0][:1]
    np.testing.assert_allclose(resumed.feed(model)[0][:1], expected, atol=1e-5, rtol=0)
    bare = Engine(causal_lm.config, causal_lm.params, tiles=False)
    without = bare.start(prompts, room).feed(bind(bare.config, bare.params))[0][:1]
    assert np.abs(without - expected).max() > 1e-2
    table = engine.for_rows(1)[1]["prefix"]
    assert table.keys() == {"table"}
    assert engine.chosen(engine.run(resumed))[:1] == engine.chosen(engine.run(fresh))[:1]


def test_a_prompt_of_blanks_goes_on_with_no_other(lm):
    engine = Engine(lm.config, lm.params, tiles=False)
    slots = engine.start(BLANKS[:1], ROOM)
    with pytest.raises(ValueError, match="hold for one prompt alone"):
        engine.resume(slots, BLANKS[1:2], [2], ROOM)
