import dataclasses
import json
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import glm_jax
from glm_jax.config import Config, DataConfig, LoraConfig, MeshConfig, TrainConfig
from glm_jax.losses.by_objective import coefficients, token_losses
from glm_jax.models.params import bind
from glm_jax.models.trees import stack_layers, to_paths
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.feed import to_devices
from glm_jax.training.state import create_state, num_bytes
from glm_jax.training.step import (
    abstract_batch,
    compile_train_step,
    compiler_options,
    make_eval_step,
    make_train_step,
)
from tests.interop.prefix_directories import (
    GOLDEN,
    batch_of_model,
    encoder,
    vectors_of,
    write_ptuning,
)


@pytest.fixture
def still(config, change):
    """The tiny config without dropout."""
    for name in ("model.dropout_rate", "model.attention_dropout_rate"):
        config = change(config, name, 0.0)
    return config


def run_step(config, batch, steps=1):
    mesh = make_mesh(config.mesh)
    state, train_step = create_state(config, mesh), make_train_step(config, mesh)
    metrics = []
    for _ in range(steps):
        state, values = train_step(state, batch)
        metrics.append(jax.device_get(values))
    return state, metrics


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def test_metrics_are_of_the_parameters_before_the_step(still, batch):
    mesh = make_mesh(still.mesh)
    params = create_state(still, mesh).params

    def loss(params):
        losses = token_losses(bind(still.resolved_model, params), batch)
        return (losses * coefficients(batch, "token_mean")).sum()

    value, gradient = jax.value_and_grad(loss)(params)
    norm = np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(gradient)))
    _, [metrics] = run_step(still, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["learning_rate"], 5e-3)


@pytest.mark.parametrize("reduction", ["token_mean", "objective_mean"])
def test_accumulated_micro_batches_equal_the_whole_batch(still, change, batch, reduction):
    # Rows with different numbers of targets, so that a mean of micro-batch means would differ.
    weights = batch.loss_weights.copy()
    weights[0, -6:] = 0
    weights[1] *= 3
    batch = type(batch)(**{**batch.to_dict(), "loss_weights": weights})
    # Without clipping, and with epsilon so large that Adam's update is smooth in the gradient.
    still = change(change(still, "optimizer.clip_norm", None), "optimizer.epsilon", 1e-2)
    still = change(still, "train.loss_reduction", reduction)
    whole, [expected] = run_step(still, batch)
    for count in (2, 4):
        state, [metrics] = run_step(change(still, "train.accumulation_steps", count), batch)
        for name in expected:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, err_msg=name)
        assert largest_difference(state.params, whole.params) < 1e-6


def test_a_batch_without_targets_only_decays(still, batch):
    batch = type(batch)(**{**batch.to_dict(), "loss_weights": np.zeros_like(batch.loss_weights)})
    state, [metrics] = run_step(still, batch)
    assert metrics["loss"] == 0.0
    assert metrics["grad_norm"] == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_dropout_is_a_function_of_seed_and_step(config, change, batch):
    _, first = run_step(config, batch, steps=2)
    _, again = run_step(config, batch, steps=2)
    assert [m["loss"] for m in first] == [m["loss"] for m in again]
    # A learning rate of 0 leaves only the step's number to make a difference.
    frozen = change(config, "optimizer.peak_learning_rate", 0.0)
    _, [one, two] = run_step(frozen, batch, steps=2)
    assert one["loss"] != two["loss"]
    # All 64 bits of the seed count: the same parameters under another dropout.
    high = change(config, "train.seed", config.train.seed + 2**32)
    mesh = make_mesh(config.mesh)
    _, metrics = make_train_step(high, mesh)(create_state(config, mesh), batch)
    assert metrics["loss"] != first[0]["loss"]


def test_scanned_layers_train_as_listed_ones(still, change, batch):
    _, listed = run_step(change(still, "compute.scan_layers", False), batch, steps=3)
    _, stacked = run_step(change(still, "compute.scan_layers", True), batch, steps=3)
    for a, b in zip(listed, stacked, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_bfloat16_parameters_keep_their_dtype(still, change, batch):
    still = change(change(still, "model.param_dtype", "bfloat16"), "train.accumulation_steps", 2)
    still = change(still, "compute.dtype", "bfloat16")
    before = create_state(still, make_mesh(still.mesh))
    state, metrics = run_step(still, batch, steps=2)
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, before)
    assert metrics[0]["loss"].dtype == np.float32


def test_dropout_of_adapters_alone_is_drawn(still, batch):
    """b is 0 at first, so the loss is the same; its gradient comes from what a was given."""
    found = []
    for rate in (0.0, 0.5):
        adapted = dataclasses.replace(still, lora=LoraConfig(rank=2, dropout=rate))
        _, [metrics] = run_step(adapted, batch)
        found.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert abs(found[0][1] / found[1][1] - 1) > 0.05


def test_evaluation_has_no_dropout(config, change, batch):
    params = create_state(config, make_mesh(config.mesh)).params
    for leaf in ("model.dropout_rate", "model.attention_dropout_rate"):
        config = change(config, leaf, 0.9)
    sums = make_eval_step(config, make_mesh(config.mesh))(params, batch)
    still = change(config, "model.dropout_rate", 0.0)
    again = make_eval_step(still, make_mesh(config.mesh))(params, batch)
    np.testing.assert_array_equal(sums["losses"], again["losses"])


_ON_FOUR_DEVICES = """
    import dataclasses, json, sys
    sys.path.insert(0, {folder!r})
    import jax, tiny_run
    jax.config.update("jax_num_cpu_devices", 4)
    import glm_jax
    from glm_jax.config import MeshConfig
    from glm_jax.sharding.mesh import (batch_sharding, make_mesh)
    from glm_jax.training.feed import to_devices
    from glm_jax.training.state import create_state
    from glm_jax.training.step import make_train_step
    batch = next(tiny_run.Stream())
    config = tiny_run.tiny_config()
    losses = []
    for sizes in ((1, 1, 1), (4, 1, 1), (1, 2, 2)):
        devices = jax.devices()[: sizes[0] * sizes[1] * sizes[2]]
        mesh = make_mesh(MeshConfig(*sizes), devices)
        state, step = create_state(config, mesh), make_train_step(config, mesh)
        placed = to_devices(batch, batch_sharding(mesh))
        for _ in range(3):
            state, metrics = step(state, placed)
        losses.append(float(metrics["loss"]))
        table = state.opt_state[0].mu["embedding"]["table"]
        assert table.sharding.is_equivalent_to(state.params["embedding"]["table"].sharding, 2)
    still = dataclasses.replace(config.model, dropout_rate=0.0, attention_dropout_rate=0.0)
    settings = dataclasses.replace(config.train, accumulation_steps=2)
    config = dataclasses.replace(config, model=still, train=settings)
    summed = []
    for sizes in ((1, 1, 1), (2, 1, 2)):
        mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: sizes[0] * sizes[2]])
        state, step = create_state(config, mesh), make_train_step(config, mesh)
        placed = to_devices(batch, batch_sharding(mesh))
        for _ in range(3):
            state, metrics = step(state, placed)
        summed.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    print(json.dumps([losses, summed]))
"""


@pytest.mark.processes
@pytest.mark.nightly
def test_every_mesh_trains_alike_with_dropout(pytestconfig):
    code = textwrap.dedent(_ON_FOUR_DEVICES).format(folder=str(pytestconfig.rootpath / "tests"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses, summed = map(np.array, json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(losses, losses[0], rtol=2e-5)
    # Without dropout, each replica adds up its micro-batches by itself.
    np.testing.assert_allclose(summed[1], summed[0], rtol=2e-5)


def products(lowered):
    """Matrix products of a program that XLA has simplified: what nobody uses is gone."""
    return len(re.findall(r" dot\(", lowered.compile().as_text()))


@pytest.mark.parametrize("cross_entropy", ["plain", "chunked", "gradient_in_forward"])
def test_what_is_frozen_has_neither_gradient_nor_moments(still, change, batch, cross_entropy):
    """One matrix is trained, the last of a layer's. Products of the compiled program:

    forward     per layer q, k, v, scores, values, out, up, down    8; logits 1         17
    backward    logits 1; through the second layer, whose attention has two each for
                scores and values, 10; the gradients of the two layers' matrices 2      13
    """
    still = change(still, "train.cross_entropy", cross_entropy)
    config = change(still, "train.trainable", "layers/mlp/down/kernel")
    mesh = make_mesh(config.mesh)
    state = create_state(config, mesh)
    assert set(to_paths(state.trainable)) == {"layers/mlp/down/kernel"}
    assert num_bytes(state.opt_state) == 2 * num_bytes(state.trainable) + 8
    assert products(make_eval_step(config, mesh).lower(state.params, batch)) == 17
    assert products(make_train_step(config, mesh).lower(state, batch)) == 17 + 13
    every = make_train_step(still, mesh).lower(create_state(still, mesh), batch)
    assert products(every) == 3 * 17


def test_only_what_is_trained_changes_and_comes_back(still, change, batch, tmp_path):
    config = change(still, "train.trainable", "embedding/table|.*bias")
    before = jax.device_get(create_state(config, make_mesh(config.mesh)).params)
    state, metrics = run_step(config, batch, steps=5)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    for path, leaf in to_paths(state.params).items():
        trained = path == "embedding/table" or path.endswith("bias")
        assert np.array_equal(leaf, to_paths(before)[path]) != trained, path
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(tmp_path, config, mesh)
    checkpoints.save(state, b"5")
    checkpoints.close()
    restored, _ = Checkpoints(tmp_path, config, mesh).restore()
    assert jax.tree.structure(restored) == jax.tree.structure(create_state(config, mesh))
    jax.tree.map(np.testing.assert_array_equal, restored, state)


@pytest.mark.parametrize("form", ["emb", "proj"])
@pytest.mark.parametrize("name", ["chatglm1", "chatglm2"])
def test_a_golden_prefix_is_trained_alone(form, name, tmp_path):
    """Loss and length of the gradient are those of the published code, and nothing else moves."""
    model = glm_jax.load(GOLDEN / name, adapter=write_ptuning(tmp_path / "prefix", name, form))
    rows, _ = batch_of_model(name)
    config = Config(
        model=dataclasses.replace(model.config.with_sizes(), prefix_dropout_rate=0.0),
        data=DataConfig(sequence_length=rows.shape[1], batch_size=rows.shape[0]),
        train=TrainConfig(trainable="prefix/.*"),
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = stack_layers(jax.tree.map(jnp.copy, model.params))
    state = create_state(config, mesh, params)
    assert {path.split("/")[0] for path in to_paths(state.trainable)} == {"prefix"}
    new, metrics = make_train_step(config, mesh)(state, rows)
    assert abs(float(metrics["loss"]) - float(vectors_of(name)[f"{form}_loss"])) < 1e-5
    gradient = encoder(name, form, "grad").values()
    norm = np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in gradient))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    before = to_paths(stack_layers(model.params))
    for path, leaf in to_paths(new.params).items():
        assert np.array_equal(leaf, before[path]) != path.startswith("prefix/"), path


def test_the_gradient_of_a_prefix_is_float32_in_a_run_in_16_bits(still, change, batch):
    """Its parameters are no matrices that are cast; those of the frozen base are."""
    for name, value in (
        ("model.prefix_length", 3),
        ("model.prefix_projection", 8),
        ("model.prefix_dropout_rate", 0.0),
        ("model.param_dtype", "bfloat16"),
        ("compute.dtype", "bfloat16"),
        ("train.trainable", "prefix/.*"),
    ):
        still = change(still, name, value)
    before = create_state(still, make_mesh(still.mesh)).trainable
    state, metrics = run_step(still, batch, steps=3)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.frozen)} == {jnp.dtype("bfloat16")}
    assert largest_difference(before, state.trainable) > 0


@pytest.mark.parametrize(
    ("kind", "memory"), [("TPU v5 lite", "65536"), ("TPU v5", "49152"), ("TPU v4", None)]
)
def test_tpus_get_whole_products_and_as_much_fast_memory_as_they_have(kind, memory):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(device_kind=kind)]))
    options = compiler_options(mesh)
    assert options["xla_jf_spmd_threshold_for_windowed_einsum_mib"] == "1000000"
    assert options.get("xla_tpu_scoped_vmem_limit_kib") == memory


def test_other_devices_get_no_options():
    for kind in ("cpu", "NVIDIA H100 80GB HBM3"):
        mesh = SimpleNamespace(devices=np.array([SimpleNamespace(device_kind=kind)]))
        assert compiler_options(mesh) == {}


def test_the_compiled_step_is_the_step(config, batch):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    like = abstract_batch(config, mesh)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), like) == jax.tree.map(
        lambda x: (x.shape, x.dtype), batch
    )
    placed = to_devices(batch, batch_sharding(mesh))
    _, metrics = compile_train_step(config, mesh)(create_state(config, mesh), placed)
    _, expected = make_train_step(config, mesh)(create_state(config, mesh), placed)
    assert float(metrics["loss"]) == float(expected["loss"])
