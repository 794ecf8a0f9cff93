"""Runs that train adapters: what is computed, what is kept, and that a stop changes nothing."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoints.loading import load_base
from glm_jax.checkpoints.params import load_saved
from glm_jax.config import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models.trees import stack_layers, to_paths
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.run.start import starting_point
from glm_jax.training.state import abstract_state, create_state, num_bytes
from glm_jax.training.step import make_train_step
from tests.tiny_run import Stream, change_fields, tiny_config
from tests.tuned_runs import config_of, save_base, tune

MESH = make_mesh(MeshConfig(), jax.devices()[:1])
STILL = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def products(config):
    """Matrix products of the step's program, and the shapes of what they give."""
    state = create_state(config, MESH) if config.train.quantize_base is None else None
    state = abstract_state(config, MESH) if state is None else state
    text = make_train_step(config, MESH).lower(state, next(Stream())).compile().as_text()
    return re.findall(r"= (\w+\[[\d,]*\])\S* dot\(", text)


def test_gradients_and_moments_are_of_the_adapters_alone():
    """Products of the compiled program, one target (mlp/up) of two layers, all logits at once:

    forward     17, as without adapters; x a and (x a) b of two layers               17 + 4
    backward    logits 1; through the second layer 10 (tests/training/test_step.py), and down of
                the first 1; of each adapter: of b, of x a, of a, and of the second also to x   7
    """
    config = change_fields(
        tiny_config(),
        model=STILL,
        lora={"rank": 2, "targets": "mlp/up"},
        train={"cross_entropy": "plain"},
    )
    state = create_state(config, MESH)
    assert num_bytes(state.trainable) == 4 * 2 * (16 * 2 + 2 * 64)
    assert num_bytes(state.opt_state) == 2 * num_bytes(state.trainable) + 8
    assert len(products(config)) == 17 + 4 + 1 + 10 + 1 + 7


@pytest.mark.parametrize("bits", [None, "int8", "int4"])
def test_no_gradient_has_the_shape_of_a_matrix(bits):
    """Of a rank of 3, no product of the step gives [16, 64] or [64, 16], with one scale per output.

    Sizes of the batch are others: 96 slots, 24 of a row.
    """
    config = change_fields(
        tiny_config(),
        model=STILL,
        lora={"rank": 3, "targets": "all"},
        train={"cross_entropy": "plain", "quantize_base": bits, "init_from": bits and "base"},
    )
    found = products(config)
    assert found
    whole = {"f32[16,64]", "f32[64,16]", "f32[16,16]"}
    assert not whole & set(found)
    every = change_fields(config, lora={"rank": 0}, train={"quantize_base": None})
    assert whole <= set(products(every))


def test_the_first_step_is_that_of_the_base(base):
    """b is 0: with the same loss, and no gradient of a."""
    config = change_fields(config_of("lora", base), model=STILL)
    params = stack_layers(load_base(config, base, MESH).params)
    plain = change_fields(config, lora={"rank": 0})
    _, expected = make_train_step(plain, MESH)(create_state(plain, MESH, params), next(Stream()))
    params = stack_layers(load_base(config, base, MESH).params)
    before = create_state(config, MESH, params)
    first = jax.device_get(before.trainable)
    state, metrics = make_train_step(config, MESH)(before, next(Stream()))
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)
    for path, leaf in to_paths(state.trainable).items():
        # Adam moves only what has a gradient; a decays by 0.1 of the learning rate.
        np.testing.assert_allclose(leaf.a, to_paths(first)[path].a, rtol=2e-3)
        assert np.abs(leaf.b).max() > 1e-3


def test_what_is_frozen_has_16_bits_and_what_is_trained_32(base):
    config = change_fields(
        config_of("lora", base),
        model={**STILL, "param_dtype": "bfloat16"},
        compute={"dtype": "bfloat16"},
    )
    config, params = starting_point(config, base / "none", MESH)
    state = create_state(config, MESH, params)
    state, metrics = make_train_step(config, MESH)(state, next(Stream()))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.frozen)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    moments = {leaf.dtype for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}
    assert moments == {jnp.dtype("float32")}
    assert np.isfinite(float(metrics["loss"]))


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_dropout_is_of_the_seed_and_the_step_in_every_layout(accumulation):
    """Scanned or listed, remade backward or not; and it does something."""

    def losses(**sections):
        config = change_fields(
            tiny_config(),
            **{
                "model": STILL,
                "lora": {"rank": 2, "dropout": 0.5},
                "train": {"accumulation_steps": accumulation},
                **sections,
            },
        )
        state, step, found = create_state(config, MESH), make_train_step(config, MESH), []
        for _ in range(3):
            state, metrics = step(state, next(Stream()))
            found.append(float(metrics["loss"]))
        return found

    first = losses()
    for compute in ({"scan_layers": True}, {"scan_layers": True, "remat": "full"}):
        np.testing.assert_allclose(losses(compute=compute), first, rtol=2e-5)
    still = losses(lora={"rank": 2, "dropout": 0.0})
    # At first b is 0, so that there is nothing to drop.
    assert still[0] == pytest.approx(first[0], rel=1e-6)
    assert abs(still[2] - first[2]) > 1e-6


@pytest.mark.parametrize(
    "kind", ["lora", *(pytest.param(one, marks=pytest.mark.nightly) for one in ("int4", "encoder"))]
)
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(base, tmp_path, kind):
    def change(steps):
        # A constant rate, so that fewer steps are the beginning of more.
        config = config_of(kind, base, num_steps=steps, eval_every=0, eval_batches=1)
        return change_fields(config, optimizer={"schedule": "constant"})

    assert tune(change(3), tmp_path / "whole") == 0
    assert tune(change(2), tmp_path / "parts") == 0
    assert tune(change(3), tmp_path / "parts") == 0
    whole, parts = (load_saved(tmp_path / name).params for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_a_base_that_has_changed_is_not_gone_on_with(base, tmp_path):
    there = tmp_path / "base"
    save_base(there)
    assert tune(config_of("lora", there, num_steps=1, eval_batches=1), tmp_path / "run") == 0
    save_base(there, seed=6)
    longer = config_of("lora", there, num_steps=1, eval_batches=1)
    longer = change_fields(longer, train={"num_steps": 2}, optimizer={"decay_steps": None})
    config = dataclasses.replace(longer, optimizer=tiny_config().optimizer)
    from glm_jax.training.run.extension import extended

    record = config_of("lora", there, num_steps=1, eval_batches=1)
    with pytest.raises(UserError, match=r"another model, with the fingerprint"):
        tune(extended(config, record, 1), tmp_path / "run")


def test_what_a_run_is_refused_for(base, tmp_path):
    config = change_fields(config_of("lora", base), lora={"targets": "mlp/gate"})
    with pytest.raises(UserError, match=r"lora\.targets: 'mlp/gate' matches no matrix"):
        tune(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"prefix_length=3 adds a prefix.*nothing trains it"):
        tune(change_fields(config_of("lora", base), model={"prefix_length": 3}), tmp_path / "run")
    config = change_fields(config_of("int8", base), train={"init_from": None})
    with pytest.raises(UserError, match=r"quantize_base='int8'.*set train\.init_from"):
        create_state(config, MESH)
    assert not (tmp_path / "run").exists()
