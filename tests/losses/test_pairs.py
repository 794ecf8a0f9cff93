"""Losses over pairs: by hand, against formulas in float64, and where their optimum is known."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import ScoredBatch
from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    PreferencesConfig,
    TrainConfig,
)
from glm_jax.errors import UserError
from glm_jax.losses import pairs
from glm_jax.losses.registry import loss_of
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.defaults import for_devices
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests.segment_rows import rows_of

VOCAB, T = 24, 16
MODEL = ModelConfig(
    vocab_size=VOCAB,
    num_layers=1,
    embed_dim=16,
    num_heads=2,
    max_positions=T,
    position_encoding="rotary",
    dropout_rate=0.0,
    attention_dropout_rate=0.0,
    initializer_range=0.3,
)


def config_of(loss="dpo", model=None, train=None, **settings):
    return Config(
        model=dataclasses.replace(MODEL, **(model or {}), value_head=loss == "reward"),
        data=DataConfig(source="none", sequence_length=T, batch_size=4),
        examples=ExamplesConfig(format="preferences"),
        optimizer=OptimizerConfig(
            peak_learning_rate=2e-2, warmup_steps=0, schedule="constant", weight_decay=0.0
        ),
        train=TrainConfig(loss=loss, num_steps=10, **(train or {})),
        preferences=PreferencesConfig(**settings),
    )


def batch_of(rows, reference=None):
    """A batch of rows of (prompt, chosen, rejected), lists of ids; None is a row of padding."""
    segments = [
        [] if row is None else [([*row[0], *answer], len(row[0])) for answer in row[1:]]
        for row in rows
    ]
    batch = rows_of(segments, T)
    if reference is None:
        return batch
    return ScoredBatch(**batch.to_dict(), reference=np.asarray(reference, np.float32))


ROWS = [
    ([3, 4, 5], [6, 7, 1], [8, 1]),
    ([9, 10], [11, 1], [12, 13, 14, 15, 1]),
    ([2, 16, 17, 18], [19, 20, 21, 1], [22, 1]),
    None,
]


def test_answers_and_what_is_summed_over_them():
    batch = batch_of(ROWS)
    assert pairs.answers(batch).sum(-1).tolist() == [[3, 2], [2, 5], [4, 2], [0, 0]]
    values = np.tile(np.arange(T, dtype=np.float32), (4, 1))
    values[:, -1] = np.nan  # padding counts nothing
    # Row 0: the prompt's last slot is 2; the chosen answer in slots 2 to 4, the other in 7 and 8.
    assert pairs.of_answers(batch, values)[0].tolist() == [2 + 3 + 4, 7 + 8]
    assert pairs.at_last_tokens(batch, values).tolist() == [[4, 8], [2, 8], [6, 11], [0, 0]]
    assert pairs.row_weights(TrainConfig(), batch).tolist() == pytest.approx([1 / 3] * 3 + [0])
    # A row with one answer is no pair.
    alone = batch_of([([3, 4], [5, 1], [6, 1]), ([3, 4], [5, 1])])
    assert pairs.row_weights(TrainConfig(), alone).tolist() == [1, 0]


def test_the_numbers_of_each_loss():
    """beta d = 0.1 and -0.2, by hand."""
    found = pairs.PairValues(jnp.array([0.2, -0.4]), jnp.zeros((2, 2)))
    settings = PreferencesConfig(beta=0.5)

    def softplus(x):
        return math.log1p(math.exp(x))

    assert pairs.dpo(settings, found).tolist() == pytest.approx([softplus(-0.1), softplus(0.2)])
    smooth = dataclasses.replace(settings, label_smoothing=0.1, margin=0.3)
    assert pairs.dpo(smooth, found).tolist() == pytest.approx(
        [0.9 * softplus(0.2) + 0.1 * softplus(-0.2), 0.9 * softplus(0.5) + 0.1 * softplus(-0.5)]
    )
    assert pairs.ipo(settings, found).tolist() == pytest.approx([0.8**2, 1.4**2])
    assert pairs.hinge(settings, found).tolist() == pytest.approx([0.9, 1.2])
    assert pairs.reward(PreferencesConfig(margin=1.0), found).tolist() == pytest.approx(
        [softplus(0.8), softplus(1.4)]
    )


def test_a_pair_may_have_a_margin_of_its_own():
    """Of the step, from the rows; it adds to that of the settings."""
    whole = batch_of(ROWS)
    margins = np.zeros((4, T), np.float32)
    # At every slot of the chosen answer: only its targets are looked at.
    margins[0, :5], margins[1, :3] = 0.5, -0.25
    reference = np.zeros((4, T), np.float32)
    batch = ScoredBatch(**whole.to_dict(), reference=reference, margins=margins)
    config = config_of(beta=0.5, margin=0.1)
    mesh, loss = make_mesh(config.mesh, jax.devices()[:1]), loss_of(config)
    params = create_state(config, mesh).params
    model = bind(config.resolved_model, params)
    weights = loss.coefficients(config.train, batch)
    found, counted = loss.sums(config.train, mesh, model, batch, weights, None)
    log_probs = pairs.log_probabilities(config.train, mesh, model, batch)
    summed = np.asarray(pairs.of_answers(batch, log_probs), np.float64)
    by = 0.5 * (summed[:3, 0] - summed[:3, 1]) - 0.1 - np.array([0.5, -0.25, 0.0])
    assert float(found) == pytest.approx(np.log1p(np.exp(-by)).mean(), rel=1e-5)
    without = dataclasses.replace(batch, margins=None)
    other, _ = loss.sums(config.train, mesh, model, without, weights, None)
    assert abs(float(other) - float(found)) > 0.01
    assert pairs.reward(
        PreferencesConfig(margin=1.0),
        pairs.PairValues(jnp.array([0.2]), jnp.zeros((1, 2)), jnp.array([0.5])),
    ).tolist() == pytest.approx([math.log1p(math.exp(1.3))])
    assert "margin" not in counted


def test_the_loss_that_trl_prints_is_that_of_its_rewards():
    """TRL 1.16.0 (`DPOTrainer`, beta 0.1) printed a loss of 0.7075105 and mean rewards of -0.016628
    and 0.011666. The loss is convex, so that of the mean rewards is a little less.
    """
    batch = batch_of([([3, 4], [5], [6])], np.zeros((1, T)))
    wanted = np.zeros((1, T), np.float32)
    wanted[0, 1], wanted[0, 3] = -0.16628, 0.11666
    found = pairs.policy_values(PreferencesConfig(), batch, wanted)
    assert found.rewards[0].tolist() == pytest.approx([-0.016628, 0.011666])
    loss = float(pairs.dpo(PreferencesConfig(), found)[0])
    assert loss == pytest.approx(math.log1p(math.exp(0.028294)), rel=1e-6)
    assert 0 < 0.7075105 - loss < 2e-4


class Float64:
    """TRL's formulas in numpy, float64, of logits [n, S, V] of whole texts, one answer a row.

    The answer's tokens are predicted one slot before; `loss` and its derivative by each logit.
    """

    def __init__(self, texts, prompts):
        self.texts, self.prompts = texts, prompts

    def log_probs(self, logits):
        logits = np.asarray(logits, np.float64)
        shifted = logits - logits.max(-1, keepdims=True)
        normal = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return [
            np.array([normal[row, at - 1, text[at]] for at in range(start, len(text))])
            for row, (text, start) in enumerate(zip(self.texts, self.prompts, strict=True))
        ]

    def slopes(self, logits, by_log_prob):
        """d loss / d logits, from the derivative by each answer's log-probabilities."""
        logits = np.asarray(logits, np.float64)
        probability = np.exp(logits - logits.max(-1, keepdims=True))
        probability /= probability.sum(-1, keepdims=True)
        found = np.zeros_like(logits)
        for row, (text, start) in enumerate(zip(self.texts, self.prompts, strict=True)):
            for number, at in enumerate(range(start, len(text))):
                here = -probability[row, at - 1]
                here[text[at]] += 1
                found[row, at - 1] += by_log_prob[row][number] * here
        return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# loss -> (value, derivative) of d, beta, smoothing
FORMULAS = {
    "dpo": lambda d, b, s: (
        -(1 - s) * np.log(sigmoid(b * d)) - s * np.log(sigmoid(-b * d)),
        b * (-(1 - s) * sigmoid(-b * d) + s * sigmoid(b * d)),
    ),
    "ipo": lambda d, b, s: ((d - 0.5 / b) ** 2, 2 * (d - 0.5 / b)),
    "hinge": lambda d, b, s: (np.maximum(0, 1 - b * d), -b * (b * d < 1)),
}


@pytest.fixture(scope="module")
def whole_texts():
    """A tiny model on each text of ROWS in a row of its own: logits, and a gradient from theirs."""
    config = config_of()
    params = create_state(config, make_mesh(config.mesh, jax.devices()[:1])).params
    rows = [row for row in ROWS if row is not None]
    texts = [[*row[0], *row[which]] for which in (1, 2) for row in rows]
    ids = np.zeros((len(texts), T), np.int32)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    index = np.broadcast_to(np.arange(T, dtype=np.int32), ids.shape)

    @jax.jit
    def logits(params):
        model = bind(config.resolved_model, params)
        zero = np.zeros_like(ids)
        return model.logits(model(ids, index, zero, zero, index + 1))

    back = jax.jit(lambda params, slopes: jax.vjp(logits, params)[1](slopes)[0])
    oracle = Float64(texts, [len(row[0]) for row in rows] * 2)
    return params, np.asarray(logits(params)), back, oracle


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("dpo", {"beta": 0.3}),
        ("dpo", {"beta": 0.3, "label_smoothing": 0.2}),
        ("dpo", {"beta": 0.3, "reference_free": True, "length_normalized": True}),
        ("ipo", {"beta": 0.4, "length_normalized": True}),
        ("hinge", {"beta": 0.2}),
    ],
)
def test_losses_and_gradients_are_those_of_the_formulas_in_float64(loss, settings, whole_texts):
    """The step's loss and gradient, in chunks, against whole texts a row and a product rule."""
    config = config_of(loss, train={"loss_chunk": 5}, **settings)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    params, scores, back, oracle = whole_texts
    log_probs = oracle.log_probs(scores)
    draws = np.random.default_rng(0)
    reference = [one + draws.normal(0, 0.5, one.shape) for one in log_probs]
    free, mean = (settings.get(name, False) for name in ("reference_free", "length_normalized"))
    sums = np.array(
        [
            (one if free else one - ref).sum() / (len(one) if mean else 1)
            for one, ref in zip(log_probs, reference, strict=True)
        ]
    )
    difference = sums[:3] - sums[3:]
    beta, smoothing = settings["beta"], settings.get("label_smoothing", 0.0)
    values, by_difference = FORMULAS[loss](difference, beta, smoothing)
    slopes = np.concatenate([by_difference, -by_difference]) / 3
    by_log_prob = [
        np.full(len(one), slope / (len(one) if mean else 1))
        for one, slope in zip(log_probs, slopes, strict=True)
    ]
    expected = back(params, jnp.asarray(oracle.slopes(scores, by_log_prob), jnp.float32))

    scored = np.zeros((4, T), np.float32)
    batch = batch_of(ROWS)
    where = np.asarray(pairs.answers(batch))
    for row in range(3):
        for side in (0, 1):
            scored[row, where[row, side]] = reference[row + 3 * side]
    batch = batch if free else batch_of(ROWS, scored)
    settled = for_devices(config, mesh)
    made = loss_of(settled)
    weights = made.coefficients(settled.train, batch)

    def run(params):
        model = bind(config.resolved_model, params)
        return made.sums(settled.train, mesh, model, batch, weights, None)

    (found, counted), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    assert float(found) == pytest.approx(values.mean(), rel=1e-5)
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5 * size),
        gradient,
        expected,
    )
    metrics = {name: float(value) for name, value in made.summarize(settled.train, counted).items()}
    assert metrics["loss"] == pytest.approx(values.mean(), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx((difference > 0).mean())
    assert metrics["reward/chosen"] == pytest.approx(beta * sums[:3].mean(), abs=1e-5)
    assert metrics["margin"] == pytest.approx(beta * difference.mean(), abs=1e-5)
    assert metrics["length/rejected"] == pytest.approx(3.0)
    assert metrics["log_prob/chosen"] == pytest.approx(
        np.mean([one.sum() for one in log_probs[:3]]), rel=1e-5
    )
    assert ("kl/k1" in metrics) == (not free)
    if not free:
        ratio = np.concatenate(log_probs) - np.concatenate(reference)
        assert metrics["kl/k1"] == pytest.approx(ratio.mean(), abs=1e-5)
        assert metrics["kl/k2"] == pytest.approx((ratio**2).mean() / 2, rel=1e-4)
        assert metrics["kl/k3"] == pytest.approx((np.exp(-ratio) - 1 + ratio).mean(), rel=1e-4)


def reference_of(config, mesh, params, batch):
    def score(params):
        model = bind(config.resolved_model, params)
        return pairs.log_probabilities(config.train, mesh, model, batch)

    return jax.jit(score)(params)


@pytest.mark.parametrize("loss", ["dpo", pytest.param("ipo", marks=pytest.mark.nightly)])
def test_a_world_of_two_answers_ends_where_the_closed_form_is(loss):
    """One prompt, answers A and B of rewards log 3 and 0; A wins by Bradley and Terry's model.

    pi*(y) ~ ref(y) exp(r(y) / beta), so that the log-ratios of A and B differ by
    (r(A) - r(B)) / beta; of a drawn sample, by the log-odds of its wins / beta. IPO regresses on
    the wins themselves: (2 p - 1) / (2 beta).
    """
    beta, count = 0.5, 240
    wins = np.random.default_rng(1).random(count) < sigmoid(math.log(3))
    share = wins.mean()
    world = ([3, 4], [5, 1], [6, 1])
    rows = [world if won else (world[0], world[2], world[1]) for won in wins]
    config = config_of(loss, train={"cross_entropy": "plain"}, beta=beta)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=count))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state = create_state(config, mesh)
    both = batch_of([world])
    before = pairs.of_answers(both, reference_of(config, mesh, state.params, both))[0]
    reference = reference_of(config, mesh, state.params, batch_of(rows))
    batch, step = batch_of(rows, reference), make_train_step(config, mesh)
    for _ in range(150 if loss == "dpo" else 500):
        state, metrics = step(state, batch)
    after = pairs.of_answers(both, reference_of(config, mesh, state.params, both))[0]
    found = float((after[0] - before[0]) - (after[1] - before[1]))
    optimum = math.log(share / (1 - share)) / beta if loss == "dpo" else (2 * share - 1) / beta / 2
    assert found == pytest.approx(optimum, rel=0.01)
    if loss == "dpo":
        # The sample's odds are the world's, within two standard errors of their logarithm.
        error = 2 / math.sqrt(count * share * (1 - share))
        assert abs(found - math.log(3) / beta) < error / beta
        entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
        assert float(metrics["loss"]) == pytest.approx(entropy, rel=1e-3)


def separable(seed, count=64):
    """Answers of five tokens; the chosen one holds the token 7, the other does not."""
    draws = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        prompt, one, other = (draws.integers(8, VOCAB, size) for size in (2, 5, 5))
        one[draws.integers(0, 4)] = 7
        rows.append((prompt.tolist(), one.tolist(), other.tolist()))
    return batch_of(rows)


def test_a_reward_model_learns_what_is_preferred_and_is_right_on_other_pairs():
    config = config_of("reward", train={"accumulation_steps": 1})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=64))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state, step = create_state(config, mesh), make_train_step(config, mesh)
    assert state.params["value_head"]["vector"].shape == (16,)
    others, accuracies = separable(1000, 200), []
    loss = loss_of(config)
    weights = loss.coefficients(config.train, others)

    @jax.jit
    def counted(params):
        model = bind(config.resolved_model, params)
        return loss.sums(config.train, mesh, model, others, weights, None)[1]

    def accuracy(params):
        return float(loss.summarize(config.train, counted(params))["accuracy"])

    accuracies.append(accuracy(state.params))
    for number in range(80):
        state, metrics = step(state, separable(number))
    accuracies.append(accuracy(state.params))
    assert 0.35 < accuracies[0] < 0.65
    assert accuracies[1] > 0.9
    assert float(metrics["margin"]) > 1


def test_micro_batches_add_up_and_padding_has_no_gradient():
    metrics = {}
    for name, steps in (("whole", 1), ("parts", 2)):
        config = config_of(train={"accumulation_steps": steps})
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        state, batch = create_state(config, mesh), batch_of(ROWS, np.zeros((4, T)))
        metrics[name] = make_train_step(config, mesh)(state, batch)[1]
    for name, value in metrics["whole"].items():
        assert float(metrics["parts"][name]) == pytest.approx(float(value), rel=1e-5), name
    assert math.isfinite(float(metrics["whole"]["grad_norm"]))


def test_rows_without_a_reference_are_refused():
    with pytest.raises(UserError, match="the rows have no log-probabilities of a reference"):
        pairs.policy_values(PreferencesConfig(), batch_of(ROWS), jnp.zeros((4, T)))
