"""Quantised matrices: products, tables, gradients, splits over a mesh, stacked layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from glm_jax.adapters.quantised import (
    Quantised,
    QuantisedTable,
    arrays_by_name,
    contracted,
    from_arrays,
    is_quantised,
    num_inputs,
    quantised,
    quantised_in,
)
from glm_jax.models.products import linear
from glm_jax.models.trees import cast, split_params, stack_layers, to_paths, unstack_layers
from glm_jax.models.weights import KINDS, multiply, plain, scorer
from glm_jax.sharding.mesh import make_mesh
from glm_jax.sharding.rules import param_shardings
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests.meshes import abstract_mesh
from tests.tiny_run import batch, change, config  # noqa: F401

INT4 = jnp.int4
RNG = np.random.default_rng(3)


def whole(shape, dtype=jnp.int8, largest=7):
    return jnp.asarray(RNG.integers(-largest, largest + 1, shape), dtype)


def scales(shape):
    return jnp.asarray(RNG.uniform(0.01, 0.1, shape), jnp.float16)


# Name, inputs, outputs, groups.
SHAPES = [
    ((6,), (4,), 1),
    ((6,), (2, 3), 1),
    ((2, 3), (4,), 1),
    ((6,), (2, 3), 3),
    ((2, 6), (4,), 3),
]


def matrix_of(weight, inputs, outputs):
    """The plain matrix by numpy, group by group."""
    rows = int(np.prod(inputs))
    values = np.asarray(weight.values.astype(jnp.float32)).reshape(rows, *outputs)
    scale = np.asarray(weight.scale, np.float32)
    size = rows // len(scale)
    return np.stack([values[i] * scale[i // size] for i in range(rows)])


@pytest.mark.parametrize("dtype", [jnp.int8, INT4], ids=["int8", "int4"])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), SHAPES)
def test_a_product_is_that_of_its_matrix(inputs, outputs, groups, dtype):
    weight = Quantised(whole((*inputs, *outputs), dtype), scales((groups, *outputs)), len(outputs))
    assert weight.shape == (*inputs, *outputs)
    assert (weight.bits, weight.num_groups) == (4 if dtype == INT4 else 8, groups)
    expected = matrix_of(weight, inputs, outputs)
    np.testing.assert_array_equal(weight.used("float32").reshape(expected.shape), expected)
    x, bias = RNG.normal(size=(5, 2, *inputs)).astype(np.float32), jnp.ones(outputs)
    y = jax.jit(multiply, static_argnums=3)(x, weight, bias, len(inputs))
    by_hand = np.tensordot(x.reshape(5, 2, -1), expected, 1) + 1
    np.testing.assert_allclose(y, by_hand, atol=1e-5)
    half = multiply(jnp.asarray(x, jnp.bfloat16), weight, None, len(inputs))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(half), by_hand - 1, atol=0.03)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype", [jnp.int8, INT4], ids=["int8", "int4"])
def test_a_table_is_looked_up_and_scores(dtype, groups):
    table = QuantisedTable(whole((5, 6), dtype), scales((5, groups)))
    expected = np.asarray(table.values.astype(jnp.float32)) * np.repeat(
        np.float32(table.scale), 6 // groups, axis=1
    )
    np.testing.assert_array_equal(table.used("float32"), expected)
    ids = jnp.array([[4, 0, 4]])
    np.testing.assert_array_equal(table.rows(ids, "float32"), expected[np.asarray(ids)])
    hidden = jnp.asarray(RNG.normal(size=(2, 6)), jnp.float32)
    np.testing.assert_allclose(scorer(table, "float32")(hidden), hidden @ expected.T, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_inputs_get_the_gradient_of_the_matrix_and_integers_none(groups):
    weight = Quantised(whole((6, 4), INT4), scales((groups, 4)), 1)
    table = QuantisedTable(whole((5, 4), INT4), scales((5, 1)))
    x = jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)

    def loss(x, weight, table):
        return jnp.sum(jnp.sin(scorer(table, "float32")(multiply(x, weight))))

    ours = jax.jit(jax.grad(loss))(x, weight, table)
    expected = jax.grad(loss)(x, weight.used("float32"), table.used("float32"))
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    gradient = jax.grad(loss, 1, allow_int=True)(x, weight, table)
    assert gradient.values.dtype == jax.dtypes.float0
    assert gradient.scale.any()


def model(dtype=INT4):
    """Parameters of two listed layers and a table."""
    layers = {
        str(index): {
            "attention": {
                "query": {"kernel": Quantised(whole((6, 2, 3), dtype), scales((1, 2, 3)), 2)},
                "out": {"kernel": Quantised(whole((2, 3, 6), dtype), scales((3, 6)), 1)},
            },
            "mlp_norm": {"scale": jnp.ones(6)},
        }
        for index in range(2)
    }
    table = QuantisedTable(whole((5, 6), dtype), scales((5, 1)))
    return {"embedding": {"table": table}, "layers": layers}


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_listed_and_stacked_layers_hold_the_same():
    listed = model()
    stacked = stack_layers(listed)
    query = stacked["layers"]["attention"]["query"]["kernel"]
    assert (query.shape, query.num_groups) == ((2, 6, 2, 3), 1)
    assert stacked["layers"]["attention"]["out"]["kernel"].num_groups == 3
    same(unstack_layers(stacked), listed)
    same(
        jax.jit(lambda params: plain(params, "float32"))(stacked),
        stack_layers(plain(listed, "float32")),
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_every_array_has_a_name(stacked):
    params = stack_layers(model()) if stacked else model()
    arrays = arrays_by_name(params)
    number = "" if stacked else "1/"
    assert f"layers/{number}attention/out/kernel/scale" in arrays
    assert f"layers/{number}mlp_norm/scale" in arrays
    assert arrays["embedding/table/values"].shape == (5, 6)
    same(from_arrays(arrays), params)


def test_the_axes_of_a_matrix_follow_from_its_path():
    assert num_inputs("layers/attention/out/kernel") == 2
    assert num_inputs("layers/3/attention/query/kernel") == 1
    values, scale = whole((2, 6, 4)), scales((2, 1, 4))
    assert quantised("layers/mlp/up/kernel", values, scale).num_outputs == 1
    assert quantised("layers/0/attention/query/kernel", values, scale).num_outputs == 2


def test_a_cast_leaves_integers_and_their_scales():
    params = cast(model(), "bfloat16")
    weight = to_paths(params)["layers/0/attention/query/kernel"]
    assert (weight.values.dtype, weight.scale.dtype) == (INT4, jnp.float16)
    assert params["layers"]["0"]["mlp_norm"]["scale"].dtype == jnp.bfloat16
    assert len(list(quantised_in(params))) == 5
    assert not is_quantised(params["layers"]["0"]["mlp_norm"])


def test_integers_can_be_chosen_by_name():
    trained, frozen = split_params(model(), r".*norm/scale")
    assert set(to_paths(trained)) == {"layers/0/mlp_norm/scale", "layers/1/mlp_norm/scale"}
    assert len(list(quantised_in(frozen))) == 5


@pytest.mark.parametrize("stacked", [False, True])
def test_on_a_mesh_a_scale_is_split_as_the_outputs(stacked):
    params = model()
    params["embedding"]["table"] = QuantisedTable(whole((4, 6), INT4), scales((4, 1)))
    placed = stack_layers(params) if stacked else params
    shardings = param_shardings(placed, abstract_mesh(fsdp=2, tensor=2))
    layer = shardings["layers"] if stacked else shardings["layers"]["0"]
    lead = (None,) if stacked else ()
    query, out = (layer["attention"][name]["kernel"] for name in ("query", "out"))
    assert query.values.spec == PartitionSpec(*lead, "fsdp", "tensor", None)
    assert query.scale.spec == PartitionSpec(*lead, None, "tensor", None)
    assert out.values.spec == PartitionSpec(*lead, "tensor", None, "fsdp")
    assert out.scale.spec == PartitionSpec(*lead, None, "fsdp")
    assert shardings["embedding"]["table"].values.spec == PartitionSpec("tensor", "fsdp")
    assert shardings["embedding"]["table"].scale.spec == PartitionSpec("tensor", None)


def test_it_is_donated_and_comes_back():
    """A step that returns its parameters reuses their memory, integers included."""
    weight = jax.device_put(Quantised(whole((6, 4), INT4), scales((1, 4)), 1))
    kept = jax.tree.map(np.asarray, weight)
    step = jax.jit(
        lambda weight: dataclasses.replace(weight, scale=2 * weight.scale), donate_argnums=0
    )
    after = step(weight)
    assert weight.values.is_deleted()
    np.testing.assert_array_equal(after.values, kept.values)
    np.testing.assert_array_equal(after.scale, 2 * kept.scale)


def rounded(name, matrix):
    """A kind for `train.weights`: int8 with a scale per output, for kernels alone."""
    if not name.endswith("/kernel"):
        return matrix
    inputs = num_inputs(name)
    axes = tuple(range(inputs))
    scale = jnp.abs(matrix).max(axes) / 127
    values = jnp.round(matrix / scale).astype(jnp.int8)
    return Quantised(values, scale[None].astype(jnp.float16), matrix.ndim - inputs)


@pytest.mark.parametrize("scanned", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_frozen_integers_are_trained_around(config, change, batch, monkeypatch, tmp_path, scanned):  # noqa: F811
    monkeypatch.setitem(KINDS, "rounded", rounded)
    run = change(change(config, "train.weights", "rounded"), "compute.scan_layers", scanned)
    run = change(change(run, "train.trainable", r".*norm/.*|.*/bias"), "model.dropout_rate", 0.0)
    mesh = make_mesh(run.mesh)
    state, step = create_state(run, mesh), make_train_step(run, mesh)
    before = jax.device_get(state.params)
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    after = jax.device_get(state.params)
    for name, leaf in arrays_by_name(before).items():
        is_trained = "norm/" in name or name.endswith("/bias")
        assert np.array_equal(arrays_by_name(after)[name], leaf) != is_trained, name
    assert not any(quantised_in(state.opt_state))

    checkpoints = Checkpoints(tmp_path, run, mesh)
    checkpoints.save(state, b"stream")
    checkpoints.wait()
    restored, _ = checkpoints.restore()
    checkpoints.close()
    same(restored, state)


@pytest.mark.parametrize(("shape", "num_inputs"), [((4, 3, 8), 1), ((3, 8, 20), 2)])
def test_axes_of_the_kernel_need_not_be_merged(shape, num_inputs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, *shape[:num_inputs])).astype(np.float32)
    kernel = rng.normal(size=shape).astype(np.float32)
    found = contracted(jnp.asarray(x), jnp.asarray(kernel), num_inputs)
    expected = linear(jnp.asarray(x), jnp.asarray(kernel), num_inputs=num_inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_matrices_are_unpacked_one_after_the_other(bits):
    shape = (512, 512)
    weight = Quantised(jnp.ones(shape, bits), jnp.ones((1, 512), "float16"), 1)

    def run(x, weights):
        for one in weights:
            x = jnp.tanh(one.multiply(x, 1))
        return x

    compiled = jax.jit(run).lower(jnp.zeros((2, 512)), [weight] * 8).compile()
    # As float32 one is 1 MiB; all eight would be 8.
    assert compiled.memory_analysis().temp_size_in_bytes < 3 << 20
