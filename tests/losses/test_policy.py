"""GRPO and PPO: their parts by hand, and losses and gradients against formulas in float64."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import RolloutBatch
from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    OptimizerConfig,
    PolicyConfig,
    RolloutsConfig,
    TrainConfig,
)
from glm_jax.errors import UserError
from glm_jax.losses import policy
from glm_jax.losses.registry import loss_of
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.defaults import for_devices
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests.losses.test_pairs import MODEL, Float64, T, batch_of

ROWS = [([3, 4, 5], [6, 7, 1]), ([9, 10], [12, 13, 14, 15, 1]), ([2, 16], [8, 1]), None]


def config_of(loss="grpo", temperature=1.0, train=None, **settings):
    return Config(
        model=dataclasses.replace(MODEL, value_head=loss == "ppo"),
        data=DataConfig(source="none", sequence_length=T, batch_size=4),
        examples=ExamplesConfig(format="prompts"),
        optimizer=OptimizerConfig(
            peak_learning_rate=2e-2, warmup_steps=0, schedule="constant", weight_decay=0.0
        ),
        train=TrainConfig(loss=loss, num_steps=10, **(train or {})),
        rollouts=RolloutsConfig(
            group_size=4, max_new_tokens=8, reward="a.py:f", temperature=temperature
        ),
        policy=PolicyConfig(**settings),
    )


def rollouts(rows=tuple(ROWS), **fields):
    """A RolloutBatch of rows of (prompt, answer), with fields [B, T]; 0 where none is given."""
    batch = batch_of(rows)
    shape = batch.tokens.shape
    arrays = {"old": np.zeros(shape), "advantages": np.zeros(shape)} | fields
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    return RolloutBatch(**batch.to_dict(), **arrays)


def test_the_clip_takes_what_would_go_too_far():
    """With a good token the ratio counts up to 1.3, with a bad one down to 0.8."""
    settings = PolicyConfig(clip_low=0.2, clip_high=0.3)
    ratio = jnp.array([0.5, 1.0, 1.5, 0.5, 1.0, 1.5])
    better = jnp.array([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    found = policy.clipped(settings, ratio, better).tolist()
    assert found == pytest.approx([-1.0, -2.0, -2.6, 1.6, 2.0, 3.0])
    slopes = jax.vmap(jax.grad(lambda w, a: policy.clipped(settings, w, a)))(ratio, better)
    assert slopes.tolist() == pytest.approx([-2, -2, 0, 0, 2, 2])


def test_a_value_may_not_move_far_from_what_it_was():
    settings = PolicyConfig(value_clip=0.2)
    values, old, returns = jnp.array([1.0, 1.0]), jnp.array([0.5, 0.5]), jnp.array([2.0, 0.0])
    # To 0.7 at most: an error of 1.3 is the larger one; away from 0 the value itself is.
    found = policy.value_error(settings, values, old, returns).tolist()
    assert found == pytest.approx([1.3**2 / 2, 1.0 / 2])
    free = dataclasses.replace(settings, value_clip=None)
    assert policy.value_error(free, values, old, returns).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("loss_per", "weights"),
    [
        ("token", [1 / 10, 1 / 10, 1 / 10]),
        ("sequence", [1 / 9, 1 / 15, 1 / 6]),
        ("longest", [1 / 24, 1 / 24, 1 / 24]),
    ],
)
def test_weights_of_tokens(loss_per, weights):
    """Answers of 3, 5 and 2 tokens; a row of padding is none; max_new_tokens is 8."""
    loss, batch = loss_of(config_of(loss_per=loss_per)), rollouts()
    found = np.asarray(loss.coefficients(TrainConfig(), batch))
    there = batch.loss_weights > 0
    assert there.sum(1).tolist() == [3, 5, 2, 0]
    for row, weight in enumerate(weights):
        np.testing.assert_allclose(found[row][there[row]], weight, rtol=1e-6)
    assert (found[~there] == 0).all()


@pytest.mark.parametrize(("loss_per", "weight"), [("token", 1 / 7), ("sequence", 1 / 15)])
def test_an_answer_that_is_masked_is_an_answer(loss_per, weight):
    """Its tokens are gone from the mean over tokens, itself not from the mean over answers."""
    batch = rollouts()
    weights = np.array(batch.loss_weights)
    weights[0] = 0
    masked = dataclasses.replace(batch, loss_weights=weights)
    found = np.asarray(loss_of(config_of(loss_per=loss_per)).coefficients(TrainConfig(), masked))
    assert found[0].sum() == 0
    np.testing.assert_allclose(found[1].max(), weight, rtol=1e-6)


@pytest.fixture(scope="module")
def whole_texts():
    """A tiny model on ROWS: its logits, and a gradient from theirs and from its values'."""
    config = config_of("ppo")
    params = create_state(config, make_mesh(config.mesh, jax.devices()[:1])).params
    rows = [row for row in ROWS if row is not None]
    texts = [[*prompt, *answer] for prompt, answer in rows]
    ids = np.zeros((len(texts), T), np.int32)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    index = np.broadcast_to(np.arange(T, dtype=np.int32), ids.shape)

    @jax.jit
    def found(params):
        model, zero = bind(config.resolved_model, params), np.zeros_like(ids)
        hidden = model(ids, index, zero, zero, index + 1)
        return model.logits(hidden), model.values(hidden)

    back = jax.jit(lambda params, slopes: jax.vjp(found, params)[1](slopes)[0])
    logits, values = map(np.asarray, found(params))
    return params, logits, values, back, Float64(texts, [len(prompt) for prompt, _ in rows])


@pytest.mark.parametrize(
    ("loss", "temperature", "settings"),
    [
        ("grpo", 1.0, {}),
        ("grpo", 0.7, {"clip_high": 0.28, "loss_per": "sequence"}),
        ("grpo", 1.0, {"kl_beta": 0.3}),
        ("grpo", 1.0, {"kl_beta": 0.3, "kl_estimator": "k2", "loss_per": "longest"}),
        ("grpo", 1.0, {"kl_beta": 0.3, "kl_by_ratio": True}),
        ("grpo", 1.3, {"entropy_bonus": 0.2}),
        ("ppo", 1.0, {"value_coefficient": 0.7}),
    ],
)
def test_losses_and_gradients_are_those_of_the_formulas_in_float64(
    loss, temperature, settings, whole_texts
):
    """The step's loss and gradient, in chunks, against whole texts and a product rule by hand."""
    config = config_of(loss, temperature, {"loss_chunk": 5}, **settings)
    params, logits, values, back, oracle = whole_texts
    draws, told = np.random.default_rng(1), config.policy
    log_probs = oracle.log_probs(logits / temperature)
    old = [one + draws.normal(0, 0.25, one.shape) for one in log_probs]
    reference = [one + draws.normal(0, 0.5, one.shape) for one in log_probs]
    better = [draws.normal(0, 1, one.shape) for one in log_probs]
    before = [draws.normal(0, 0.1, one.shape) for one in log_probs]
    returns = [draws.normal(0, 1, one.shape) for one in log_probs]
    lengths = [len(one) for one in log_probs]
    weights = {
        "token": [1 / sum(lengths)] * 3,
        "sequence": [1 / (3 * length) for length in lengths],
        "longest": [1 / (3 * 8)] * 3,
    }[told.loss_per]
    wanted, by_log_prob, by_value = 0.0, [], np.zeros_like(values, np.float64)
    entropy = Entropy(oracle, logits / temperature)
    for row, weight in enumerate(weights):
        ratio = np.exp(log_probs[row] - old[row])
        within = np.clip(ratio, 1 - told.clip_low, 1 + told.clip_high)
        free, held = ratio * better[row], within * better[row]
        wanted -= weight * np.minimum(free, held).sum()
        slope = -weight * np.where((free < held) | (within == ratio), free, 0.0)
        far = log_probs[row] - reference[row]
        if told.kl_beta and told.kl_estimator == "k3":
            k3 = np.exp(-far) - 1 + far
            by, falls = (ratio, k3) if told.kl_by_ratio else (1.0, 0.0)
            wanted += weight * told.kl_beta * (by * k3).sum()
            slope += weight * told.kl_beta * by * (falls + 1 - np.exp(-far))
        elif told.kl_beta:
            wanted += weight * told.kl_beta * (far**2 / 2).sum()
            slope += weight * told.kl_beta * far
        by_log_prob.append(slope)
        wanted -= weight * told.entropy_bonus * entropy.values[row].sum()
        if loss == "ppo":
            here = (row, slice(oracle.prompts[row] - 1, len(oracle.texts[row]) - 1))
            now = values[here].astype(np.float64)
            near = np.clip(now, before[row] - 0.2, before[row] + 0.2)
            errors = (now - returns[row]) ** 2, (near - returns[row]) ** 2
            wanted += weight * 0.7 * np.maximum(*errors).sum() / 2
            moves = errors[0] >= errors[1]
            inside = near == now
            by_value[here] = weight * 0.7 * (now - returns[row]) * (moves | inside)
    slopes = oracle.slopes(logits / temperature, by_log_prob)
    for row, weight in enumerate(weights):
        slopes[row] -= weight * told.entropy_bonus * entropy.slopes[row]
    gradient = back(
        params, (np.asarray(slopes / temperature, np.float32), by_value.astype(np.float32))
    )

    fields = {"old": old, "advantages": better}
    if told.kl_beta:
        fields["reference"] = reference
    if loss == "ppo":
        fields |= {"old_values": before, "returns": returns}
    found, got = step_of(config, params, {name: at_slots(one) for name, one in fields.items()})
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    for path, leaf in jax.tree.leaves_with_path(got):
        other = gradient
        for key in path:
            other = other[key.key]
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5, err_msg=str(path))


class Entropy:
    """Entropies of the answers' tokens and their derivatives by all logits, float64."""

    def __init__(self, oracle, logits):
        logits = np.asarray(logits, np.float64)
        normal = logits - logits.max(-1, keepdims=True)
        normal -= np.log(np.exp(normal).sum(-1, keepdims=True))
        whole = -(np.exp(normal) * normal).sum(-1)
        self.values, self.slopes = [], np.zeros_like(logits)
        for row, (text, start) in enumerate(zip(oracle.texts, oracle.prompts, strict=True)):
            here = slice(start - 1, len(text) - 1)
            self.values.append(whole[row, here])
            # d H / d z_j = -p_j (log p_j + H)
            self.slopes[row, here] = -np.exp(normal[row, here]) * (
                normal[row, here] + whole[row, here, None]
            )


def test_rows_without_old_log_probabilities_are_refused(whole_texts):
    config = config_of("ppo")
    loss, batch, mesh = loss_of(config), batch_of(ROWS), make_mesh(config.mesh)
    model = bind(config.resolved_model, whole_texts[0])
    with pytest.raises(UserError, match="the rows are no rollouts"):
        loss.sums(config.train, mesh, model, batch, jnp.zeros((4, T)), None)


def at_slots(values):
    """Values of the tokens of each answer of ROWS, at their slots [4, T]."""
    found = np.zeros((4, T))
    for row, one in enumerate(values):
        start = len(ROWS[row][0]) - 1
        found[row, start : start + len(one)] = one
    return found


def step_of(config, params, fields):
    """The loss of a batch and its gradient by the parameters."""
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    config = for_devices(config, mesh)
    loss, batch = loss_of(config), rollouts(**fields)
    if not config.model.value_head:
        params = {name: one for name, one in params.items() if name != "value_head"}

    @jax.jit
    def of(params):
        model = bind(config.resolved_model, params)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            weights = loss.coefficients(config.train, batch)
            return loss.sums(config.train, mesh, model, batch, weights, None)

    (value, counted), gradient = jax.value_and_grad(of, has_aux=True)(params)
    assert float(loss.summarize(config.train, counted)["loss"]) == pytest.approx(float(value))
    return float(value), gradient


def test_a_step_on_new_answers_has_the_ratio_1_and_clips_nothing():
    config = config_of(kl_beta=0.1)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state = create_state(config, mesh)
    model = bind(config.resolved_model, state.params)
    batch = rollouts()
    hidden = model(
        *(
            getattr(batch, name)
            for name in ("tokens", "positions", "block_positions", "attend_start", "attend_end")
        )
    )
    log_probs, _ = policy.log_probs_and_entropy(config.train, mesh, model, batch, hidden, 1.0, 8)
    better = np.array([1.0, -1.0, 0.5, 0.0])[:, None] * (batch.loss_weights > 0)
    batch = rollouts(old=log_probs, reference=log_probs, advantages=better)
    state, metrics = make_train_step(config, mesh)(state, batch)
    found = {name: float(value) for name, value in metrics.items()}
    assert found["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert found["clipped/low"] == found["clipped/high"] == 0
    assert found["kl/k3"] == pytest.approx(0.0, abs=1e-6)
    # 3 tokens of 1, 5 of -1, 2 of 0.5.
    assert found["loss/policy"] == pytest.approx(-(3 - 5 + 1) / 10, abs=1e-6)
    assert 0 < found["entropy"] < math.log(24)
    # After the step the better answer is more probable.
    after = bind(config.resolved_model, state.params)
    hidden = after(
        *(
            getattr(batch, name)
            for name in ("tokens", "positions", "block_positions", "attend_start", "attend_end")
        )
    )
    now, _ = policy.log_probs_and_entropy(config.train, mesh, after, batch, hidden, 1.0, 8)
    gained = np.where(batch.loss_weights > 0, np.asarray(now) - batch.old, 0).sum(1)
    assert gained[0] > 0 > gained[1]
