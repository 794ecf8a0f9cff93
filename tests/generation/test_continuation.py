import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import glm_jax
from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation import engine, programs
from glm_jax.generation.cache import empty_cache, with_length
from glm_jax.generation.continuation import generate_rows
from glm_jax.generation.engine import Engine
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import Limits
from glm_jax.generation.prefill import prefill
from glm_jax.generation.sampling import Sampling
from glm_jax.interop.origin import Origin
from glm_jax.models.params import bind, create_params
from glm_jax.sharding.mesh import make_mesh

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"
MODELS = ["chatglm2", "chatglm3", "glm4_9b", "glm4_0414"]
CONFIG = ModelConfig(
    vocab_size=96,
    num_layers=2,
    embed_dim=32,
    num_heads=4,
    num_kv_heads=2,
    activation="swiglu",
    norm="rms_norm",
    biases="qkv",
    tied_embeddings=False,
    position_encoding="rotary",
    max_positions=256,
    initializer_range=0.3,
).resolved(ComputeConfig(scan_layers=False))
PROMPTS = [[5, 9, 33], [7], [11, 3, 90, 21, 60, 2, 8], [40, 41]]


@pytest.fixture(scope="module")
def lm():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(CONFIG, create_params(CONFIG, mesh, seed=3))


@pytest.fixture(scope="module", params=MODELS)
def golden(request):
    directory = GOLDEN / request.param
    return glm_jax.load(directory), json.loads((directory / "generate.json").read_text())


def whole_row_logits(lm, ids, size=64):
    """Without a cache, padded to one size, so that it compiles once: [len(ids), V]."""
    places = np.arange(size, dtype=np.int32)
    inside = places < len(ids)
    nothing = np.zeros(size, np.int32)
    fields = {
        "tokens": np.pad(np.array(ids, np.int32), (0, size - len(ids))),
        "targets": nothing,
        "loss_weights": nothing.astype(np.float32),
        "positions": places * inside,
        "block_positions": nothing,
        "attend_start": nothing,
        "attend_end": (places + 1) * inside,
    }
    batch = {name: value[None] for name, value in fields.items()}
    return np.asarray(lm.logits(batch))[0, : len(ids)]


def cached_logits(lm, ids, num_prompt):
    """All but the last id of the prompt at once, then one by one: the scores of new ids."""
    tokens = np.pad(np.array([ids], np.int32), ((0, 0), (0, 64 - len(ids))))
    length = np.array([num_prompt - 1], np.int32)
    caches = prefill(
        bind(lm.config, lm.params), tokens, length, config=lm.config, size=64, width=64
    )
    model, scores = bind(lm.config, lm.params), []
    feed = jax.jit(model.extend)
    for at in range(num_prompt - 1, len(ids)):
        place, nothing = np.full((1, 1), at, np.int32), np.zeros((1, 1), np.int32)
        caches = with_length(caches, jnp.asarray(place[0]))
        hidden, caches = feed(tokens[:, at : at + 1], place, nothing, nothing, place + 1, caches)
        scores.append(np.asarray(model.logits(hidden))[0, 0])
    return np.stack(scores)


def test_greedy_answers_are_those_of_the_originals(golden):
    lm, cases = golden
    expected = [case["new_tokens"] for case in cases]
    assert len(expected) == 2
    prompts = [case["prompt"] for case in cases]
    assert lm.generate(prompts, max_new_tokens=16, eos_ids=[]) == expected
    alone = [lm.generate([prompt], max_new_tokens=16, eos_ids=[])[0] for prompt in prompts]
    assert alone == expected


def test_logits_through_the_cache_are_those_of_the_originals_and_of_the_whole_row(golden):
    lm, cases = golden
    for case in cases:
        ids, num_prompt = case["prompt"] + case["new_tokens"][:-1], len(case["prompt"])
        cached = cached_logits(lm, ids, num_prompt)
        assert len(cached) == 16
        np.testing.assert_allclose(cached[:, :8], case["first8_logits_per_step"], atol=1e-4, rtol=0)
        plain = whole_row_logits(lm, ids)[num_prompt - 1 :]
        np.testing.assert_allclose(cached, plain, atol=2e-4, rtol=0)


def test_answers_are_those_of_a_loop_over_whole_rows(lm):
    answers = lm.generate(PROMPTS, max_new_tokens=12, eos_ids=[])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(whole_row_logits(lm, ids)[-1].argmax()))
        assert answer == ids[len(prompt) :]
    assert len({tuple(answer) for answer in answers}) == 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.7},
        {"temperature": 1.0, "seed": 5},
        {"temperature": 2.0, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2},
    ],
)
def test_rows_at_once_are_rows_alone(lm, options):
    options = {"max_new_tokens": 10, "eos_ids": [4, 17], **options}
    together = lm.generate(PROMPTS, **options)
    assert together == [lm.generate([prompt], **options)[0] for prompt in PROMPTS]
    assert together[::-1] == lm.generate(PROMPTS[::-1], **options)


def test_an_answer_ends_before_its_eos_and_others_go_on(lm):
    free = lm.generate(PROMPTS, max_new_tokens=10, eos_ids=[])
    assert [len(answer) for answer in free] == [10] * 4
    eos = free[0][4]
    ended = lm.generate(PROMPTS, max_new_tokens=10, eos_ids=[eos, 95])
    for long, short in zip(free, ended, strict=True):
        ends = [long.index(id_) for id_ in (eos, 95) if id_ in long]
        assert short == long[: min(ends, default=10)]
    assert len(ended[0]) <= 4 < max(map(len, ended))


def test_eos_is_that_of_the_checkpoint_when_not_given(lm):
    (free,) = lm.generate(PROMPTS[:1], max_new_tokens=10, eos_ids=[])
    for value in (free[3], [95, free[3]]):
        model = LanguageModel(CONFIG, lm.params, origin=Origin(values={"eos_token_id": value}))
        expected = free[: free.index(free[3])]
        assert model.generate(PROMPTS[:1], max_new_tokens=10) == [expected]
    with pytest.raises(UserError, match="give eos_ids="):
        lm.generate(PROMPTS)
    tokenizer = glm_jax.load_tokenizer("bundled")
    model = LanguageModel(CONFIG, lm.params, tokenizer)
    assert model._eos_ids() == [tokenizer.special.eos]


def test_tokens_are_told_as_they_come(lm):
    options = {"max_new_tokens": 10, "temperature": 1.0, "eos_ids": list(range(12))}
    told = []
    answers = lm.generate(PROMPTS, on_token=lambda row, id_: told.append((row, id_)), **options)
    assert answers == lm.generate(PROMPTS, **options)
    assert len({len(answer) for answer in answers}) > 1
    # Step by step, rows in order, none after its end.
    steps = [
        [(row, a[step]) for row, a in enumerate(answers) if step < len(a)] for step in range(10)
    ]
    assert told == [one for step in steps for one in step]


def test_answers_after_a_prefill_in_chunks_are_those_after_one_call(lm, monkeypatch):
    tokens = np.random.default_rng(0).integers(0, 96, (3, 256))
    rows = [row[:count].tolist() for row, count in zip(tokens, (200, 70, 3), strict=True)]
    whole = lm.generate(rows, max_new_tokens=8, eos_ids=[])
    monkeypatch.setattr(engine, "CHUNK", 64)
    assert lm.generate(rows, max_new_tokens=8, eos_ids=[]) == whole


def test_one_compilation_serves_a_bucket(lm):
    told = []

    def on_token(row, id_):
        told.append((row, id_))

    lm.generate(PROMPTS, max_new_tokens=5, eos_ids=[4], on_token=on_token)
    compiled = programs.start, programs.run
    before = [program.__wrapped__._cache_size() for program in compiled]
    lm.generate(PROMPTS[:3], max_new_tokens=9, eos_ids=[6])
    lm.generate([[1] * 40] * 4, max_new_tokens=3, eos_ids=[95], on_token=on_token)
    assert len(told) > 8
    assert [program.__wrapped__._cache_size() for program in compiled] == before


def test_draws_are_decided_by_seed_and_prompt(lm):
    options = {"max_new_tokens": 20, "temperature": 1e6, "eos_ids": []}
    first, other, copy = lm.generate([[5, 9], [7], [5, 9]], seed=0, **options)
    assert lm.generate([[5, 9]], seed=0, **options) == [first]
    # So hot that every id is as likely as any other: equal draws would be equal answers.
    again = lm.generate([[5, 9]], seed=1, **options)[0]
    assert len({tuple(answer) for answer in (first, other, copy, again)}) == 4
    assert all(len(set(answer)) > 10 for answer in (first, other, copy, again))
    narrow = {"max_new_tokens": 8, "eos_ids": [], "temperature": 1.5}
    greedy = lm.generate(PROMPTS, max_new_tokens=8, eos_ids=[])
    assert lm.generate(PROMPTS, top_k=1, **narrow) == greedy
    assert lm.generate(PROMPTS, top_p=1e-6, **narrow) == greedy


def test_a_penalty_works_on_the_ids_of_prompt_and_answer(lm):
    prompt, penalty = PROMPTS[2], 1.5
    ids = list(prompt)
    for _ in range(12):
        scores = whole_row_logits(lm, ids)[-1].copy()
        for id_ in set(ids):
            scores[id_] *= penalty if scores[id_] < 0 else 1 / penalty
        ids.append(int(scores.argmax()))
    options = {"max_new_tokens": 12, "eos_ids": []}
    assert lm.generate([prompt], repetition_penalty=penalty, **options) == [ids[len(prompt) :]]
    assert lm.generate([prompt], **options) != [ids[len(prompt) :]]
    # Without end, every id comes once.
    (answer,) = lm.generate([prompt], repetition_penalty=1e9, **options)
    assert len(set(prompt + answer)) == len(prompt + answer)


def test_an_answer_may_reach_the_end_of_the_context(lm):
    (answer,) = lm.generate([[1] * 246], max_new_tokens=10, eos_ids=[])
    assert len(answer) == 10


def test_many_rows_and_another_compute_type(lm):
    rows = [[id_, id_ + 1] for id_ in range(40)]
    options = {"max_new_tokens": 4, "eos_ids": []}
    assert lm.generate(rows, **options)[37] == lm.generate([rows[37]], **options)[0]
    half = LanguageModel(CONFIG.with_compute(dtype="bfloat16"), lm.params)
    assert len(half.generate(PROMPTS, **options)[3]) == 4


def test_the_cache_has_the_heads_of_keys():
    assert empty_cache(CONFIG, 4, 64)[1].values.shape == (4, 2, 64, 8)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "no prompts"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [2, 96]], {}, "id 96 is outside the vocabulary of 96"),
        ([[-1]], {}, "id -1 is outside"),
        ([[1], [1] * 250], {}, r"prompt 1 of 250 tokens and max_new_tokens=7 .* context of 256"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be at least 1; got 0"),
        ([[1]], {"repetition_penalty": 0.0}, "repetition_penalty must be above 0; got 0.0"),
        ([[1]], {"temperature": -1.0}, "temperature"),
    ],
)
def test_what_cannot_be_continued_is_named(lm, prompts, options, message):
    with pytest.raises(UserError, match=message):
        lm.generate(prompts, **{"max_new_tokens": 7, "eos_ids": [], **options})


def test_a_model_that_fills_blanks_says_so(lm):
    glm = dataclasses.replace(CONFIG, position_encoding="learned_block")
    with pytest.raises(UserError, match="use fill_blanks"):
        LanguageModel(glm, lm.params).generate([[1]], max_new_tokens=2, eos_ids=[])


def test_rows_can_be_continued_without_a_language_model(lm):
    engine = Engine(CONFIG, lm.params)
    answers = generate_rows(engine, PROMPTS, limits=Limits([], 6), sampling=Sampling())
    assert answers == lm.generate(PROMPTS, max_new_tokens=6, eos_ids=[])
    assert jnp.asarray(answers).shape == (4, 6)


@pytest.fixture(scope="module")
def chatglm_6b():
    directory = GOLDEN / "chatglm1"
    return glm_jax.load(directory), json.loads((directory / "generate.json").read_text())


def test_chatglm_6b_continues_prompts_by_their_blanks(chatglm_6b):
    """The golden answers: of [gMASK] at the end and of a [MASK] in the middle, also together."""
    lm, cases = chatglm_6b
    prompts = [case["prompt"] for case in cases]
    expected = [case["new_tokens"] for case in cases]
    assert lm.generate(prompts, max_new_tokens=16, eos_ids=[]) == expected
    assert lm.generate(prompts[:1], max_new_tokens=16, eos_ids=[]) == expected[:1]
    seen = []
    report = lm.generate(
        prompts, max_new_tokens=16, eos_ids=[], on_token=lambda row, id_: seen.append((row, id_))
    )
    assert report == expected
    assert [id_ for row, id_ in seen if row == 1] == expected[1]
    # Without end ids config.json's eop ends an answer.
    ended = lm.generate(prompts[:1], max_new_tokens=16, eos_ids=[expected[0][3]])
    assert ended == [expected[0][:3]]
    beams = lm.generate(prompts, max_new_tokens=4, eos_ids=[], num_beams=1)
    assert beams == [ids[:4] for ids in expected]


def test_chatglm_6b_fills_blanks_as_well(chatglm_6b):
    lm, cases = chatglm_6b
    text = cases[1]["prompt"][:-1]
    assert lm.fill_blanks(text, max_new_tokens=16, end_ids=[]) == [cases[1]["new_tokens"]]
    assert len(lm.fill_blanks([98, 300, 5, 301, 7], max_new_tokens=3)) == 2
    with pytest.raises(UserError, match="prompt 0 has not: use fill_blanks"):
        lm.generate([[5, 6, 7]])
