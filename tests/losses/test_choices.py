"""The loss over candidates, by arithmetic, by the scores of evaluation, and as it is trained."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import glm_jax
from glm_jax.batch import NUM_OBJECTIVES, Batch, empty_fields
from glm_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.building import objects_of
from glm_jax.data.examples.clozes import ClozeMaker
from glm_jax.errors import UserError
from glm_jax.evaluation.held_out_cloze import accuracy
from glm_jax.generation.language_model import LanguageModel
from glm_jax.losses import choices
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.evaluation import Evaluator
from glm_jax.training.state import create_state
from glm_jax.training.step import make_eval_step, make_train_step

TOKENIZER = glm_jax.load_tokenizer("bundled")
T = 96
WORDS = {"good": "great", "bad": "a waste of time"}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"text": f"The day number {n} was long.", "label": ["good", "bad"][n % 2]}
        for n in range(24)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Config(
        ModelConfig(
            vocab_size=7168,
            num_layers=1,
            embed_dim=16,
            num_heads=2,
            max_positions=T,
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
            initializer_range=0.2,
        ),
        DataConfig(
            source=str(path),
            store=str(tmp_path / "store"),
            sequence_length=T,
            batch_size=4,
            eval_fraction=0.3,
        ),
        examples=ExamplesConfig(
            format="cloze",
            pattern="{text} It was [MASK].",
            verbalizers=WORDS,
            candidates=True,
        ),
        optimizer=OptimizerConfig(peak_learning_rate=3e-2, warmup_steps=1),
        train=TrainConfig(loss="choices", num_steps=20),
    )


def of_starts(starts, weights):
    fields = empty_fields(np.shape(starts), 0)
    fields["attend_start"][...] = starts
    fields["loss_weights"][...] = weights
    return Batch(**fields)


def test_the_sums_of_segments():
    batch = of_starts([[0, 0, 0, 3, 3, 0]], [[1, 1, 0, 1, 1, 0]])
    values = np.array([[1.0, 2, 0, 4, 1, 0]], np.float32)
    assert choices.segment_sums(batch, values).tolist() == [[3, 0, 0, 5, 0, 0]]
    # A row with one segment asks nothing, and one of padding alone neither.
    starts, weights = [[0, 0, 2, 2], [0] * 4, [0] * 4], [[0, 1, 0, 1], [0, 1, 0, 1], [0] * 4]
    rows = of_starts(starts, weights)
    assert choices.row_weights(TrainConfig(), rows).tolist() == [1, 0, 0]
    rows = of_starts([[0, 0, 2, 2]] * 2, [[0, 1, 0, 1]] * 2)
    assert choices.row_weights(TrainConfig(), rows).tolist() == [0.5, 0.5]


def test_the_numbers_of_the_docstring():
    """Right -2, wrong -3, then a row of padding; its scores give no loss and no NaN."""
    batch = of_starts([[0, 0, 2, 2, 0], [0] * 5], [[0, 1, 0, 1, 0], [0] * 5])
    fixed = jnp.array([[9.0, 2, 9, 3, 9], [9.0] * 5])
    weights = choices.row_weights(TrainConfig(), batch)

    def loss(scale):
        return choices.over_candidates(scale * fixed, batch, weights)[0]

    found, slope = jax.value_and_grad(loss)(1.0)
    assert found == pytest.approx(np.log(np.exp(-2) + np.exp(-3)) + 2)
    # d/ds log(1 + exp(-s)) at 1.
    assert slope == pytest.approx(-1 / (1 + np.e))
    counted = choices.over_candidates(fixed, batch, weights)[1]
    assert {name: float(value) for name, value in counted.items()} == {
        "choices": pytest.approx(0.3133, abs=1e-4),
        "right": 1.0,
        "questions": 1.0,
    }
    added = {"choices": jnp.float32(3), "right": jnp.float32(1), "questions": jnp.float32(2)}
    summary = choices.summarize(TrainConfig(), added)
    assert summary == {"loss": 1.5, "accuracy": 0.5}


def test_rows_and_their_loss_are_those_of_the_scores(config):
    """Each held-out question by `lm.answer_scores`, against the loss of the stream's rows."""
    mesh = make_mesh(config.mesh)
    params = create_state(config, mesh).params
    lm = LanguageModel(config.model, params, TOKENIZER)
    maker = ClozeMaker(config.examples, TOKENIZER, True)
    losses = []
    for _, record in objects_of(config, maker, "eval"):
        (one,) = maker.clozes(record)
        order = [one.answer, *(word for word in one.candidates if word != one.answer)]
        filled = [maker.filled(one, word) for word in order]
        scores = lm.answer_scores(
            [maker.blanks.prompt(each) for each in filled],
            [maker.blanks.scored(each) for each in filled],
        )
        sums = [float(each.log_probabilities.sum()) for each in scores]
        losses.append(np.log(np.exp(sums).sum()) - sums[0])
    stream = glm_jax.batches(config, "eval")
    total = {"choices": 0.0, "right": 0.0, "questions": 0.0}
    rows = 0
    evaluate = make_eval_step(config, mesh)
    while rows < stream.num_rows:
        batch = next(stream)
        take = min(4, stream.num_rows - rows)
        inside = np.arange(4)[:, None] < take  # the stream begins anew behind the last row
        kept = {name: np.where(inside, value, 0) for name, value in batch.to_dict().items()}
        for name, value in evaluate(params, Batch(**kept)).items():
            total[name] += float(value)
        rows += take
    assert total["questions"] == len(losses)
    assert total["choices"] == pytest.approx(sum(losses), rel=1e-4)
    found = accuracy(lm, config)
    assert total["right"] / total["questions"] == pytest.approx(found["accuracy"])


def test_it_is_learnt_and_micro_batches_add_up(config):
    # Of equal length: an untrained model prefers the shorter one by far.
    words = dataclasses.replace(config.examples, verbalizers={"good": "great", "bad": "old"})
    config = dataclasses.replace(config, examples=words)
    mesh = make_mesh(config.mesh)
    batch = next(glm_jax.batches(config, "train"))
    parts = dataclasses.replace(
        config, train=dataclasses.replace(config.train, accumulation_steps=2)
    )
    first = {}
    for name, one in (("whole", config), ("parts", parts)):
        state, step = create_state(one, mesh), make_train_step(one, mesh)
        losses = []
        for _ in range(20 if name == "whole" else 1):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        first[name] = losses[0]
        if name == "whole":
            assert losses[-1] < 0.5 * losses[0]
            assert float(metrics["accuracy"]) == 1.0
    assert first["parts"] == pytest.approx(first["whole"], rel=1e-5)


def test_an_evaluation_of_a_run_has_its_metrics_and_no_unigram_loss(config):
    mesh = make_mesh(config.mesh)
    batch = next(glm_jax.batches(config, "eval"))
    evaluate = Evaluator(config, mesh, [batch], np.ones((NUM_OBJECTIVES, 7168), np.int64))
    found = evaluate(create_state(config, mesh).params)
    assert set(found) == {"eval/loss", "eval/accuracy"}
    assert 0.0 <= found["eval/accuracy"] <= 1.0


def test_what_does_not_go_together(config):
    with pytest.raises(UserError, match=r"'choices' and examples.candidates=True go together"):
        dataclasses.replace(config, train=TrainConfig())
    with pytest.raises(UserError, match=r"'choices' and examples.candidates=True go together"):
        Config(train=TrainConfig(loss="choices"))
    alone = dataclasses.replace(config.examples, verbalizers=None)
    with pytest.raises(UserError, match="two candidates at least; got 1 with 0"):
        ClozeMaker(alone, TOKENIZER, True).examples({"text": "a", "label": "b"})
