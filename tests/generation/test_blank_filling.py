import importlib.util
import subprocess
import sys
from itertools import chain
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation import programs
from glm_jax.generation.blank_filling import fill_rows
from glm_jax.generation.cache import empty_cache, with_length
from glm_jax.generation.engine import Engine
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.sampling import Sampling
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests import tiny_run

GENERATION = Path(__file__).parents[1] / "golden" / "glm" / "generation"
MASKS, START, ENDS = (2, 7, 8), 5, (6, 0)


def plain_loop(lm, ids, max_new_tokens):
    """Without a cache: the whole row again for every token. Returns answers and logits."""
    tokens, positions, blocks = list(ids), list(range(len(ids))), [0] * len(ids)
    answers, logits = [], []
    for blank in [i for i, token in enumerate(ids) if token in MASKS]:
        answer, scores, token = [], [], START
        while len(answer) < max_new_tokens:
            tokens, positions = [*tokens, token], [*positions, blank]
            blocks = [*blocks, len(answer) + 1]
            scores.append(last_logits(lm, tokens, positions, blocks, len(ids)))
            token = int(scores[-1].argmax())
            if token in ENDS:
                break
            answer.append(token)
        answers.append(answer)
        logits.append(np.stack(scores))
    return answers, logits


def last_logits(lm, tokens, positions, blocks, prefix, size=128):
    """Padded to one size, so that it compiles once."""
    length = len(tokens)
    places = np.arange(size)
    fields = {"tokens": tokens, "positions": positions, "block_positions": blocks}
    batch = {k: np.pad(np.array(v, np.int32), (0, size - length))[None] for k, v in fields.items()}
    batch["attend_start"] = np.zeros((1, size), np.int32)
    ends = np.where(places < length, np.maximum(prefix, places + 1), 0)
    batch["attend_end"] = ends.astype(np.int32)[None]
    batch["targets"] = np.zeros((1, size), np.int32)
    batch["loss_weights"] = np.zeros((1, size), np.float32)
    return np.asarray(lm.logits(batch))[0, length - 1]


def fill(lm, ids, **options):
    options = {"mask_ids": MASKS, "start_id": START, "end_ids": ENDS, **options}
    return lm.fill_blanks(ids, **options)


def greedy_cases(cases):
    return {case["id"]: case for case in cases["greedy"]}


def test_all_golden_cases_are_here(cases):
    assert len(cases["greedy"]) == 10


@pytest.mark.parametrize("number", range(10))
def test_greedy_answers_are_the_published_ones(lm, cases, number):
    case = cases["greedy"][number]
    limit = case["max_new_tokens_per_blank"]
    expected = [blank["tokens"] for blank in case["blanks"]]
    assert fill(lm, case["context"], max_new_tokens=limit) == expected


@pytest.mark.parametrize("name", ["three_MASK", "cut_off_by_length", "MASK_sMASK_gMASK"])
def test_the_cache_equals_the_plain_loop_and_its_golden_logits(lm, cases, name):
    case = greedy_cases(cases)[name]
    limit = case["max_new_tokens_per_blank"]
    answers, logits = plain_loop(lm, case["context"], limit)
    assert answers == fill(lm, case["context"], max_new_tokens=limit)
    golden = np.load(GENERATION / "step_logits.npz")
    for index, scores in enumerate(logits):
        theirs = golden[f"{name}/blank{index}"]
        np.testing.assert_allclose(scores, theirs, atol=5e-5, rtol=0)


def test_logits_through_the_cache_are_the_golden_ones(lm, cases):
    """Place by place: part A at once, then one token at a time."""
    case, golden = greedy_cases(cases)["three_MASK"], np.load(GENERATION / "step_logits.npz")
    ids = np.array([case["context"]], np.int32)
    model, length = bind(lm.config, lm.params), ids.shape[1]
    zeros, places = np.zeros_like(ids), np.arange(length, dtype=np.int32)[None]
    caches = empty_cache(lm.config, 1, 64)
    _, caches = model.extend(ids, places, zeros, zeros, zeros + length, caches)
    feed = jax.jit(lambda *inputs: model.extend(*inputs))
    for index, blank in enumerate(case["blanks"]):
        for step, token in enumerate([START, *blank["tokens"]]):
            if step == case["max_new_tokens_per_blank"]:
                break
            one = np.ones((1, 1), np.int32)
            hidden, caches = feed(
                one * token,
                one * blank["mask_position"],
                one * (step + 1),
                one * 0,
                one * (length + 1),
                with_length(caches, jnp.array([length], jnp.int32)),
            )
            length += 1
            logits = np.asarray(model.logits(hidden))[0, 0]
            theirs = golden[f"three_MASK/blank{index}"][step]
            np.testing.assert_allclose(logits, theirs, atol=5e-5, rtol=0)


def test_rows_at_once_are_rows_alone(lm, cases):
    """Rows of different lengths and numbers of blanks."""
    rows = [case["context"] for case in cases["greedy"]]
    options = {"marks": Marks(MASKS, START), "limits": Limits(ENDS, 6)}
    together = fill_rows(Engine(lm.config, lm.params), rows, sampling=Sampling(), **options)
    assert together == [fill(lm, row, max_new_tokens=6) for row in rows]
    assert together == fill(lm, rows, max_new_tokens=6)


def test_the_published_filling_of_several_blanks(lm, cases):
    """Padded inside part A; 24 steps a row in all, ends included; what is left stays empty."""
    case = cases["batched_multi_blank_greedy"]
    sources, length = case["source_rows"], case["padded_source_length"]
    rows = [row + [0] * (length - len(row)) for row in sources]
    found = fill(lm, rows, max_new_tokens=24, max_total_tokens=24, end_ids=[6])
    for source, answers, expected in zip(sources, found, case["filled_rows"], strict=True):
        left = iter(answers)
        filled = [next(left) if token in MASKS else [token] for token in source]
        assert list(chain(*filled)) == expected
    assert found[2][2] == []


def test_bans_hold_in_each_answer(lm, cases):
    rows = [case["context"] for case in cases["greedy"]]
    answers = list(chain(*fill(lm, rows, max_new_tokens=8, min_new_tokens=3, no_repeat_ngram=1)))
    assert {len(answer) for answer in answers} == {*map(len, answers)} - {0, 1, 2}
    assert all(len(set(answer)) == len(answer) for answer in answers)
    # Without the bans there are short answers and repeated ids.
    plain = list(chain(*fill(lm, rows, max_new_tokens=8)))
    assert any(len(answer) < 3 for answer in plain)
    assert any(len(set(answer)) < len(answer) for answer in plain)


def test_draws_are_decided_by_their_seed(lm, cases):
    ids = greedy_cases(cases)["three_MASK"]["context"]
    draws = [fill(lm, ids, max_new_tokens=8, temperature=1.5, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    # One candidate leaves nothing to draw.
    narrow = fill(lm, ids, max_new_tokens=8, temperature=1.5, top_k=1)
    assert narrow == fill(lm, ids, max_new_tokens=8)
    assert narrow == fill(lm, ids, max_new_tokens=8, temperature=1.5, top_p=1e-6)


def test_every_step_of_every_blank_draws_anew(lm):
    # So hot that every id is as likely as any other.
    answers = fill(lm, [1, 2, 30, 2], max_new_tokens=30, temperature=1e6, end_ids=[])
    assert answers[0] != answers[1]
    assert all(len(set(answer)) > 20 for answer in answers)


def test_one_compilation_serves_a_bucket(lm, cases):
    ids = greedy_cases(cases)["one_MASK"]["context"]
    fill(lm, ids, max_new_tokens=5)
    compiled = programs.start, programs.run
    before = [program.__wrapped__._cache_size() for program in compiled]
    fill(lm, ids[:-3], max_new_tokens=7)
    fill(lm, ids + ids[-4:], max_new_tokens=3, end_ids=[1, 4])
    assert [program.__wrapped__._cache_size() for program in compiled] == before


def test_an_answer_may_reach_the_last_block_position(lm):
    # 65 rows: block positions 1 to 64 can be fed.
    (answer,) = fill(lm, [1, 2, 3], max_new_tokens=64, end_ids=[])
    assert len(answer) == 64


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([1, 20, 21], {}, r"no blank to fill: none of the mask ids \[2, 7, 8\]"),
        ([], {}, "no blank to fill"),
        ([1, 2, 128], {}, "id 128 is outside the vocabulary of 128"),
        ([1, 2, -1], {}, "id -1 is outside"),
        ([2] * 66, {}, "66 tokens does not fit the model's 65 positions"),
        ([1, 2], {"max_new_tokens": 65}, "max_new_tokens=65 .* 65 block positions; at most 64"),
        ([1, 2], {"max_new_tokens": 0}, "max_new_tokens must be at least 1; got 0"),
        ([1, 2], {"mask_ids": None}, "give mask_ids="),
        ([1, 2], {"start_id": None}, "give start_id="),
        ([1, 2], {"end_ids": None}, "give end_ids="),
    ],
)
def test_what_cannot_be_filled_is_named(lm, ids, options, message):
    with pytest.raises(UserError, match=message):
        fill(lm, ids, **options)


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_part_a_on_several_tpus_is_attended_by_the_kernel():
    script = Path(__file__).with_name("prefill_for_tpu.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # With the mesh of the parameters set, and without, as attention would be left to XLA.
    assert done.stdout.split() == ["1", "0"]


def test_a_rotary_model_fills_blanks_by_its_config_alone():
    """Trained on four rows until it knows them; their blanks are then filled with what stood there.

    Without block positions the tokens of a span could not be told apart.
    """
    config = tiny_run.change_fields(
        tiny_run.tiny_config(),
        model={"position_encoding": "rotary_block", "dropout_rate": 0.0},
        train={"num_steps": 150},
    )
    mesh = make_mesh(config.mesh)
    state, step = create_state(config, mesh), make_train_step(config, mesh)
    batch = next(tiny_run.Stream())
    fed = jax.device_put(batch, batch_sharding(mesh))
    for _ in range(config.train.num_steps):
        state, metrics = step(state, fed)
    assert metrics["loss"] < 0.05
    lm = LanguageModel(config.model, state.params)
    for row in range(tiny_run.ROWS):
        prefix = int(batch.attend_end[row, 0])
        answer = batch.targets[row, prefix : prefix + 4].tolist()
        (filled,) = lm.fill_blanks(
            batch.tokens[row, :prefix].tolist(), [1], 4, [5], max_new_tokens=8
        )
        assert filled == answer
