"""Runs that begin with the parameters of another model."""

import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.checkpoints.params import save_params
from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig, TrainConfig
from glm_jax.config.files import apply_overrides
from glm_jax.errors import UserError
from glm_jax.models.params import create_params
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.training.run.start import planned_config, starting_point
from glm_jax.training.run.workdir import record_run

MODEL = ModelConfig(vocab_size=64, num_layers=2, embed_dim=16, num_heads=2, max_positions=32)


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
    return Config(model=ModelConfig(**model), train=train)


def test_no_model_no_change(tmp_path, mesh):
    config = Config(model=MODEL)
    assert starting_point(config, tmp_path, mesh) == (config, None)


def test_shape_and_parameters_are_the_models(saved, tmp_path, mesh):
    path, expected = saved
    config, params = starting_point(config_from(path, dropout_rate=0.3), tmp_path / "run", mesh)
    assert config.model == dataclasses.replace(MODEL, dropout_rate=0.3)
    for name, value in to_paths(params).items():
        np.testing.assert_array_equal(value, expected[name])


def file_and_set(model, *overrides):
    """What `train` has of a file with a `model`, and of `--set`."""
    return apply_overrides(Config(model=model), overrides), overrides


def test_what_is_asked_for_beside_it_must_fit(saved, tmp_path, mesh):
    path, _ = saved
    init = f"train.init_from={path}"
    for call in (planned_config, lambda c, o: starting_point(c, tmp_path / "run", mesh, o)):
        config, overrides = file_and_set(MODEL, init, "model.num_layers=7")
        with pytest.raises(
            UserError, match=r"a model with model.num_layers=2 \(not 7\); its shape"
        ):
            call(config, overrides)
        # Also where it is the default of a config.
        config, overrides = file_and_set(MODEL, init, "model.num_layers=12", "model.mlp_dim=64")
        with pytest.raises(UserError, match=r"model.num_layers=2 \(not 12\); its shape"):
            call(config, overrides)
    equal = ["model.num_layers=2", "model.mlp_dim=64", "model.head_dim=8", "model.num_kv_heads=2"]
    assert planned_config(*file_and_set(MODEL, init, *equal)).model == MODEL
    # What is not of the shape acts.
    kept = planned_config(*file_and_set(MODEL, init, "model.dropout_rate=0.5"))
    assert kept.model == dataclasses.replace(MODEL, dropout_rate=0.5)


def test_the_model_of_a_file_gives_way_to_a_later_override_and_that_is_said(saved, caplog):
    path, _ = saved
    file = dataclasses.replace(MODEL, num_layers=5, norm="rms_norm")
    config, overrides = file_and_set(file, f"train.init_from={path}")
    assert planned_config(config, overrides).model == MODEL
    (record,) = caplog.records
    assert record.getMessage() == (
        "the model of train.init_from takes the place of the config's: "
        "model.num_layers=2 (not 5), model.norm='layer_norm' (not 'rms_norm')"
    )
    # A file that says both contradicts itself.
    with pytest.raises(UserError, match=r"model.num_layers=2 \(not 5\), model.norm='layer_norm'"):
        planned_config(config)


def test_the_same_model_in_other_words(tmp_path, mesh):
    said = dataclasses.replace(
        MODEL, position_encoding="rotary", rotary_scaling="base", rotary_factor=50.0
    )
    save_params(tmp_path / "model", said, create_params(said, mesh, seed=3))
    other = dataclasses.replace(said, rotary_scaling="none", rotary_base=5e5, rotary_factor=1.0)
    config = dataclasses.replace(config_from(tmp_path / "model"), model=other)
    assert planned_config(config).model == said
    with pytest.raises(UserError, match=r"model\.rotary_base=500000"):
        planned_config(config_from(tmp_path / "model", rotary_base=2.0))


def test_a_model_without_a_prefix_gets_the_one_asked_for(saved, tmp_path, mesh):
    path, expected = saved
    asked = {"prefix_length": 3, "prefix_projection": 5, "prefix_dropout_rate": 0.2}
    config, params = starting_point(config_from(path, **asked), tmp_path / "run", mesh)
    assert config.model == dataclasses.replace(MODEL, **asked)
    drawn = to_paths(create_params(config.model, mesh, config.train.seed))
    for name, value in to_paths(params).items():
        np.testing.assert_array_equal(value, expected.get(name, drawn[name]), err_msg=name)
    # One that has a prefix brings it, and no other can be asked for beside it.
    save_params(tmp_path / "tuned", config.model, params)
    going_on, same = starting_point(config_from(tmp_path / "tuned"), tmp_path / "run", mesh)
    assert going_on.model == dataclasses.replace(config.model, prefix_dropout_rate=0.1)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    with pytest.raises(UserError, match=r"model.prefix_length=3 \(not 4\)"):
        planned_config(config_from(tmp_path / "tuned", prefix_length=4))


def test_a_run_that_goes_on_has_what_it_began_with(saved, tmp_path, mesh, caplog):
    path, _ = saved
    run = tmp_path / "run"
    config, _ = starting_point(config_from(path), run, mesh)
    record_run(run, config)
    (run / "checkpoints" / "5").mkdir(parents=True)
    asked, overrides = file_and_set(MODEL, f"train.init_from={path}", "model.num_layers=7")
    with pytest.raises(UserError, match=r"model.num_layers=2 \(not 7\)"):
        starting_point(asked, run, mesh, overrides)
    file = dataclasses.replace(MODEL, num_layers=5)
    starting_point(*file_and_set(file, overrides[0])[:1], run, mesh, overrides[:1])
    assert not caplog.records


def test_a_plan_knows_the_shape_without_the_weights(saved, tmp_path, mesh):
    path, _ = saved
    assert planned_config(Config(model=MODEL)) == Config(model=MODEL)
    config = config_from(path, remat="full")
    assert planned_config(config).model == dataclasses.replace(
        MODEL, remat="full", dropout_rate=0.1
    )
    with pytest.raises(UserError, match="no directory"):
        planned_config(config_from(tmp_path / "nothing"))


def test_parameters_are_stacked_and_take_the_dtype_of_the_run(saved, tmp_path, mesh):
    path, expected = saved
    config = config_from(path, param_dtype="bfloat16")
    config, params = starting_point(config, tmp_path / "run", mesh)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.dtype == "bfloat16"
    np.testing.assert_array_equal(kernel, expected["layers/mlp/up/kernel"].astype("bfloat16"))


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
    assert starting_point(config, tmp_path / "run", mesh)[0].model.vocab_size == 7168
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
