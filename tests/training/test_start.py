"""Runs that begin with the parameters of another model."""

import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig, TrainConfig
from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import load_tokenizer
from glm_jax.models.params import create_params, to_paths
from glm_jax.sharding import make_mesh
from glm_jax.training.checkpoints import save_params
from glm_jax.training.start import planned_config, starting_point
from glm_jax.training.workdir import record_run

MODEL = ModelConfig(
    vocab_size=64, num_layers=2, embed_dim=16, num_heads=2, max_positions=32, scan_layers=False
)


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture
def saved(tmp_path, mesh):
    """A model on disk, and its parameters by path."""
    params = create_params(MODEL, mesh, seed=3)
    save_params(tmp_path / "model", MODEL, params)
    return tmp_path / "model", to_paths(params)


def config_from(path, **model):
    train = TrainConfig(init_from=str(path))
    return Config(model=ModelConfig(scan_layers=False, **model), train=train)


def test_no_model_no_change(tmp_path, mesh):
    config = Config(model=MODEL)
    assert starting_point(config, tmp_path, mesh) == (config, None)


def test_shape_and_parameters_are_the_models(saved, tmp_path, mesh):
    path, expected = saved
    config, params = starting_point(config_from(path, dropout_rate=0.3), tmp_path / "run", mesh)
    assert config.model == dataclasses.replace(MODEL, dropout_rate=0.3)
    for name, value in to_paths(params).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_plan_knows_the_shape_without_the_weights(saved, tmp_path, mesh):
    path, _ = saved
    assert planned_config(Config(model=MODEL)) == Config(model=MODEL)
    config = config_from(path, remat="full")
    assert planned_config(config).model == dataclasses.replace(
        MODEL, remat="full", dropout_rate=0.1
    )
    with pytest.raises(UserError, match="no directory"):
        planned_config(config_from(tmp_path / "nothing"))


def test_parameters_take_the_layout_and_dtype_of_the_run(saved, tmp_path, mesh):
    path, expected = saved
    config = config_from(path, param_dtype="bfloat16")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, scan_layers=True))
    config, params = starting_point(config, tmp_path / "run", mesh)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.dtype == "bfloat16"
    listed = [expected[f"layers/{index}/mlp/up/kernel"] for index in range(2)]
    np.testing.assert_array_equal(kernel, np.stack(listed).astype("bfloat16"))


def test_a_run_that_has_begun_does_not_read_it_again(saved, tmp_path, mesh):
    path, _ = saved
    run = tmp_path / "run"
    config, _ = starting_point(config_from(path), run, mesh)
    record_run(run, config)
    (run / "checkpoints" / "5").mkdir(parents=True)
    gone = config_from(path)
    path.rename(tmp_path / "elsewhere")
    assert starting_point(gone, run, mesh) == (config, None)


def test_another_tokenizer(tmp_path, mesh):
    tokenizer = load_tokenizer("bundled")
    model = dataclasses.replace(MODEL, vocab_size=tokenizer.vocab_size)
    save_params(tmp_path / "model", model, create_params(model, mesh, 0), tokenizer)
    config = config_from(tmp_path / "model")
    assert starting_point(config, tmp_path / "run", mesh)[0].model.vocab_size == 8192
    # Anything behind a sentencepiece model is another file of the same pieces.
    other = tmp_path / "other.model"
    tokenizer.save(tmp_path)
    other.write_bytes((tmp_path / "tokenizer.model").read_bytes() + b"\x1a\x00")
    config = dataclasses.replace(config, data=DataConfig(tokenizer=str(other)))
    with pytest.raises(UserError, match=r"another tokenizer than data.tokenizer='.*other.model'"):
        starting_point(config, tmp_path / "run", mesh)


def test_no_model_there(tmp_path, mesh):
    with pytest.raises(UserError, match="no directory"):
        starting_point(config_from(tmp_path / "nothing"), tmp_path / "run", mesh)
