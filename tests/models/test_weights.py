"""Kinds of weights; the last tests are the whole of a new kind: it trains, decodes and is saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import glm_jax
from glm_jax.errors import UserError
from glm_jax.models.trees import join_params, split_params, stack_layers, to_paths, unstack_layers
from glm_jax.models.weights import (
    KINDS,
    Master,
    Weight,
    decay_mask,
    is_matrix,
    multiply,
    plain,
    scorer,
    settle,
    with_kind,
)
from glm_jax.sharding.mesh import make_mesh
from glm_jax.sharding.rules import param_shardings
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests.tiny_run import batch, change, config, tokenizer  # noqa: F401


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled(Weight):
    """directions * exp(log_scale), with a scale per row of the matrix."""

    directions: jax.Array
    log_scale: jax.Array

    @property
    def shape(self):
        return self.directions.shape

    def used(self, dtype):
        return (self.directions * jnp.exp(self.log_scale)).astype(dtype)

    @classmethod
    def create(cls, name, matrix):
        ones = (1,) * (matrix.ndim - 1)
        return cls(matrix, jnp.zeros((len(matrix), *ones)))


def test_the_gradient_of_a_master_is_that_of_the_value_it_is_used_as():
    value = jnp.array([[1.001, -2.0], [3.0, 0.5]])
    x = jnp.array([[2.0, 1.0]], jnp.bfloat16)

    def loss(value, site):
        used = settle({"kernel": Master(value, site)})["kernel"]
        assert used.dtype == jnp.bfloat16
        return jnp.sum(jnp.square(x @ used).astype(jnp.float32))

    site = jnp.zeros(value.shape, jnp.bfloat16)
    to_value, to_site = jax.grad(loss, (0, 1))(value, site)
    expected = jax.grad(lambda w: jnp.sum(jnp.square(x @ w).astype(jnp.float32)))(
        value.astype(jnp.bfloat16)
    )
    assert to_site.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(to_site), np.float32(expected))
    assert not to_value.any()


def test_only_matrices_are_cast():
    assert is_matrix("layers/0/mlp/up/kernel")
    assert is_matrix("positions/block_table")
    assert not is_matrix("layers/0/mlp/up/bias")
    assert not is_matrix("final_norm/scale")
    # A prefix stays float32.
    assert not is_matrix("prefix/table")
    assert not is_matrix("prefix/down/kernel")


TWO = Scaled(jnp.array([[1.0, 2], [3, 4], [5, 6]]), jnp.log(jnp.array([[1.0], [2], [4]])))
MATRIX = [[1, 2], [6, 8], [20, 24]]


def test_what_a_weight_does_follows_from_its_shape_and_its_matrix():
    np.testing.assert_allclose(multiply(jnp.array([1.0, 1, 0]), TWO), [7, 10], rtol=1e-6)
    found = multiply(jnp.array([[1.0, 1, 0]]), TWO, jnp.array([1.0, 2]))
    np.testing.assert_allclose(found, [[8, 12]], rtol=1e-6)
    np.testing.assert_allclose(TWO.rows(jnp.array([2, 0]), "float32"), [[20, 24], [1, 2]], 1e-6)
    np.testing.assert_allclose(scorer(TWO, "float32")(jnp.array([1.0, 0])), [1, 6, 20], 1e-6)
    np.testing.assert_allclose(plain({"kernel": TWO}, "float32")["kernel"], MATRIX, 1e-6)


def test_most_kinds_have_no_dropout_and_nothing_beside_the_matrix():
    assert TWO.dropping(jax.random.key(0)) is TWO
    assert TWO.beside == ()


def test_its_arrays_are_split_as_the_matrix_where_they_have_its_size():
    specs = TWO.specs(PartitionSpec("fsdp", "tensor"))
    assert specs.directions == PartitionSpec("fsdp", "tensor")
    assert specs.log_scale == PartitionSpec("fsdp", None)


def test_its_arrays_decay_with_it():
    mask = decay_mask({"up": {"kernel": TWO, "bias": jnp.zeros(2)}})
    assert mask["up"]["kernel"] == Scaled(True, True)
    assert mask["up"]["bias"] is False


def test_a_prefix_decays_as_embeddings_do():
    one = jnp.ones(2)
    mask = decay_mask({"prefix": {"rows": {"table": one}, "up": {"kernel": one, "bias": one}}})
    assert mask == {"prefix": {"rows": {"table": True}, "up": {"kernel": True, "bias": False}}}


def test_a_weight_can_be_split_into_what_is_trained_and_what_is_not():
    params = {"mlp": {"up": {"kernel": TWO, "bias": jnp.zeros(2)}}}
    trained, frozen = split_params(params, r".*/log_scale")
    assert trained["mlp"]["up"]["kernel"].directions is None
    assert frozen["mlp"]["up"]["kernel"].log_scale is None
    assert set(to_paths(trained)) == {"mlp/up/kernel"}
    joined = join_params(trained, frozen)
    assert joined["mlp"]["up"]["kernel"] == TWO
    assert jax.tree.structure(joined) == jax.tree.structure(params)


def test_kinds_have_names():
    with pytest.raises(UserError, match=r"train.weights must be one of \['plain'\]; got 'plane'"):
        with_kind({}, "plane")


@pytest.fixture
def scaled(config, change, monkeypatch):  # noqa: F811
    """A run whose matrices are `Scaled`."""
    monkeypatch.setitem(KINDS, "scaled", Scaled.create)
    return change(change(config, "train.weights", "scaled"), "model.dropout_rate", 0.0)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("trainable", [None, ".*/log_scale"])
def test_a_new_kind_trains_and_is_saved(scaled, change, batch, tmp_path, scanned, trainable):  # noqa: F811
    run = change(scaled, "compute.scan_layers", scanned)
    run = change(run, "train.trainable", trainable)
    mesh = make_mesh(run.mesh)
    state, step = create_state(run, mesh), make_train_step(run, mesh)
    before = jax.device_get(state.params)
    plainly = change(change(run, "train.weights", "plain"), "train.trainable", None)
    _, first = make_train_step(plainly, mesh)(create_state(plainly, mesh), batch)
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[0], float(first["loss"]), rtol=1e-6)
    assert losses[-1] < losses[0]
    key = "layers/mlp/up/kernel"
    old, new = to_paths(before)[key], to_paths(state.params)[key]
    assert not np.allclose(new.log_scale, old.log_scale)
    assert np.allclose(new.directions, old.directions) == (trainable is not None)

    checkpoints = Checkpoints(tmp_path, run, mesh)
    checkpoints.save(state, b"stream")
    checkpoints.wait()
    restored, _ = checkpoints.restore()
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_new_kind_decodes_and_is_written_plainly(scaled, tmp_path):
    mesh = make_mesh(scaled.mesh)
    params = create_state(scaled, mesh).params
    params = jax.tree.map(
        lambda leaf: (
            leaf + 0.1 * jnp.sin(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
        ),
        params,
    )
    lm = glm_jax.LanguageModel(scaled.model, params)
    same = glm_jax.LanguageModel(scaled.model, plain(params, "float32"))
    options = {"mask_ids": [3], "start_id": 4, "end_ids": [5], "max_new_tokens": 5}
    ids = [[10, 3, 12, 3, 14], [3, 7]]
    assert lm.fill_blanks(ids, **options) == same.fill_blanks(ids, **options)
    lm.save(tmp_path / "plain")
    loaded = glm_jax.load(tmp_path / "plain")
    for name, leaf in to_paths(unstack_layers(same.params)).items():
        np.testing.assert_array_equal(to_paths(loaded.params)[name], leaf)


def test_a_new_kind_is_sharded_by_its_own_rule(scaled):
    mesh = make_mesh(scaled.mesh)
    params = stack_layers(create_state(scaled, mesh).params)
    found = to_paths(param_shardings(params, mesh))["layers/mlp/up/kernel"]
    assert found.directions.spec == PartitionSpec(None, "fsdp", "tensor")
    assert found.log_scale.spec == PartitionSpec(None, "fsdp", None)
