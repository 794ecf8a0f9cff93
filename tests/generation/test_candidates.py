"""Candidates against what the model gives when every way to fill a text is scored by itself."""

import jax
import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.corruption import assemble
from glm_jax.errors import UserError
from glm_jax.generation.candidates import Filling, _best, search_fillings
from glm_jax.generation.engine import Engine
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import BeamSearch, Limits, Marks
from glm_jax.generation.slots import Room
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh

MASK, START, END = 1, 2, 3
V = 24


@pytest.fixture(scope="module")
def lm():
    config = ModelConfig(
        vocab_size=V,
        num_layers=2,
        embed_dim=16,
        num_heads=2,
        max_positions=64,
        initializer_range=0.4,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, seed=0))


def search(lm, ids, beams, longest, room=None):
    return search_fillings(
        Engine(lm.config, lm.params),
        ids,
        marks=Marks([MASK], START),
        limits=Limits([END], longest),
        search=BeamSearch(beams, 0.0),
        room=room,
    )


def scored(lm, text, answers, longest):
    """The log-probability of answers, as training would have computed it for the filled text."""
    filled, spans = [], []
    rest = iter(answers)
    for id_ in text:
        if id_ != MASK:
            filled.append(id_)
            continue
        answer = next(rest)
        spans.append((len(filled), len(filled) + len(answer)))
        filled += answer
    fields = assemble(
        filled, spans, list(range(len(spans))), mask_id=MASK, start_id=START, end_id=END
    )
    # The last id of an answer that the length ended was never fed, and no end was asked for.
    ends = np.flatnonzero((fields["targets"] == END) & (fields["loss_weights"] > 0))
    cut = [end for end, answer in zip(ends, answers, strict=True) if len(answer) == longest]
    fields = {name: np.delete(value, cut)[None] for name, value in fields.items()}
    slots = np.arange(fields["tokens"].shape[1])
    fields["attend_end"] = np.maximum(fields["attend_end"].min(), slots + 1)[None].astype(np.int32)
    row = Batch(**fields)
    logs = np.asarray(jax.nn.log_softmax(lm.logits(row)))[0]
    asked = np.flatnonzero(row.loss_weights[0])
    return float(logs[asked, row.targets[0, asked]].sum())


def test_all_answers_of_one_id_in_their_order(lm):
    """With one id at most, an answer is the end or any other id, and the search misses none."""
    text = [5, 6, MASK, 7]
    found = search(lm, text, 12, 1)
    assert len(found) == 12
    every = {(): None} | {(id_,): scored(lm, text, [[id_]], 1) for id_ in range(V) if id_ != END}
    rest = sum(np.exp(value) for value in every.values() if value is not None)
    every[()] = np.log(1.0 - rest)
    best = sorted(every, key=lambda answer: -every[answer])[:12]
    assert [tuple(filling.answers[0]) for filling in found] == best
    np.testing.assert_allclose(
        [filling.log_probability for filling in found], [every[one] for one in best], atol=2e-4
    )


def test_several_blanks_are_filled_together(lm):
    text = [5, MASK, 6, 7, MASK, 8, MASK]
    found = search(lm, text, 8, 3)
    assert len(found) == 8
    ways = [tuple(map(tuple, filling.answers)) for filling in found]
    assert len(set(ways)) == 8
    assert len({way[0] for way in ways}) > 1 or len({way[1] for way in ways}) > 1
    values = [filling.log_probability for filling in found]
    assert values == sorted(values, reverse=True)
    whole = [filling for filling in found if all(filling.answers)]
    assert len(whole) >= 3
    for filling in whole:
        expected = scored(lm, text, filling.answers, 3)
        assert filling.log_probability == pytest.approx(expected, abs=1e-3)
    # What is most likely id by id is among them, or worse than the worst.
    greedy = lm.fill_blanks(text, [MASK], START, [END], max_new_tokens=3)
    if all(greedy):
        assert tuple(map(tuple, greedy)) in ways or scored(lm, text, greedy, 3) < values[-1]


def test_with_a_room_given_texts_of_other_shapes_compile_nothing(lm, compiled):
    """The same fillings, with as many slots as there can be and arrays as long as is allowed."""
    room = Room(size=128, answers=64, blanks=4, ends=1)
    texts = [[5, MASK, 6, 7, MASK, 8, MASK], [9, MASK, 4], [MASK, 7, 7, MASK]]
    expected = [
        search(lm, text, 3, longest) for text, longest in zip(texts, (3, 2, 4), strict=True)
    ]
    search(lm, texts[0], 3, 3, room)
    compiled.clear()
    for text, longest, ways in zip(texts, (3, 2, 4), expected, strict=True):
        found = search(lm, text, 3, longest, room)
        assert [one.answers for one in found] == [one.answers for one in ways]
        np.testing.assert_allclose(
            [one.log_probability for one in found], [one.log_probability for one in ways], atol=1e-5
        )
    assert compiled == []


def test_what_ends_in_two_ways_comes_once():
    """Two fillings before, each with a search of three: one found 5 with either of two ends."""
    before = [Filling([[7]], -0.5), Filling([[8]], -2.0)]
    answers = np.array([[[5, 0], [5, 0], [6, 0]], [[5, 0], [9, 9], [0, 0]]])
    counts = np.array([[1, 1, 1], [1, 2, 0]])
    scores = np.array([[-1.0, -1.2, -3.0], [-0.1, -0.2, -np.inf]], np.float32)
    parents, kept = _best(before, answers, counts, scores, 4)
    assert parents == [0, 1, 1, 0]
    assert [filling.answers for filling in kept] == [
        [[7], [5]],
        [[8], [5]],
        [[8], [9, 9]],
        [[7], [6]],
    ]
    assert [filling.log_probability for filling in kept] == pytest.approx([-1.5, -2.1, -2.2, -3.5])


def test_errors(lm):
    with pytest.raises(UserError, match="no blank to fill"):
        search(lm, [5, 6], 2, 3)
    with pytest.raises(UserError, match="num_beams=13 is too much for a vocabulary of 24"):
        search(lm, [5, MASK], 13, 3)
