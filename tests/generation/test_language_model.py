import json

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation import language_model
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.models.trees import stack_layers, to_paths
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=32, num_layers=2, embed_dim=16, num_heads=2, max_positions=16
).resolved(ComputeConfig(scan_layers=False))


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def batch(**changes):
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 32, (2, 3, 6)).astype(np.int32)
    places = np.broadcast_to(np.arange(6, dtype=np.int32), tokens.shape)
    fields = {
        "tokens": tokens,
        "targets": targets,
        "loss_weights": rng.random(tokens.shape).astype(np.float32),
        "positions": places,
        "block_positions": np.zeros_like(tokens),
        "attend_start": np.zeros_like(tokens),
        "attend_end": places + 1,
    }
    return {**fields, **changes}


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(CONFIG, create_params(CONFIG, one_device(), seed=0))


def test_loss_is_the_weighted_mean_over_the_whole_batch(lm):
    fields = batch()
    logits = np.asarray(lm.logits(fields), np.float64)
    assert logits.shape == (3, 6, 32)
    assert lm.logits(fields).dtype == np.float32
    picked = np.take_along_axis(logits, fields["targets"][..., None], -1)[..., 0]
    losses = np.log(np.exp(logits).sum(-1)) - picked
    weights = fields["loss_weights"]
    expected = (losses * weights).sum() / weights.sum()
    assert float(lm.loss(fields)) == pytest.approx(expected, rel=1e-6)
    # A Batch and its dict are the same.
    assert float(lm.loss(glm_jax.Batch.from_dict(fields))) == float(lm.loss(fields))


def test_stacked_parameters_are_taken_too(lm):
    stacked = LanguageModel(CONFIG.with_compute(scan_layers=True), stack_layers(lm.params))
    np.testing.assert_array_equal(stacked.logits(batch()), lm.logits(batch()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.full((3, 6), 17, np.int32)}, "positions has 17; .* 17 rows"),
        ({"tokens": np.full((3, 6), 32, np.int32)}, r"tokens holds ids .* 32; .* 0..31"),
        ({"targets": np.full((3, 6), -1, np.int32)}, "targets holds ids from -1"),
    ],
)
def test_what_a_table_cannot_look_up_is_named(lm, changes, message):
    with pytest.raises(UserError, match=message):
        lm.logits(batch(**changes))


def test_a_second_model_of_the_same_shape_compiles_nothing(lm):
    lm.logits(batch())
    before = language_model._logits.__wrapped__._cache_size()
    LanguageModel(CONFIG, create_params(CONFIG, one_device(), seed=1)).logits(batch())
    assert language_model._logits.__wrapped__._cache_size() == before


@pytest.fixture
def workdir(tmp_path, lm):
    """A run's directory, by the public way to write one."""
    tokenizer = glm_jax.load_tokenizer("bundled")
    LanguageModel(CONFIG, lm.params, tokenizer).save(tmp_path / "run", format="orbax")
    return tmp_path / "run"


def test_a_workdir_and_its_steps_are_loaded(workdir, lm):
    assert json.loads((workdir / "run.json").read_text())["model"]["num_layers"] == 2
    for path in (workdir, next((workdir / "checkpoints").iterdir())):
        loaded = glm_jax.load(path)
        assert loaded.config == lm.config
        assert loaded.tokenizer.fingerprint == glm_jax.load_tokenizer("bundled").fingerprint
        assert loaded.special == loaded.tokenizer.special
        for name, leaf in to_paths(loaded.params).items():
            np.testing.assert_array_equal(leaf, to_paths(lm.params)[name])


def test_from_a_workdir_to_hugging_face_and_back(workdir, tmp_path, lm):
    glm_jax.load(workdir).save(tmp_path / "hf")
    again = glm_jax.load(tmp_path / "hf")
    np.testing.assert_array_equal(again.logits(batch()), lm.logits(batch()))
    assert again.special == glm_jax.load(workdir).special
    half = glm_jax.load(workdir, dtype="bfloat16")
    assert half.config.param_dtype == "bfloat16"
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.params)} == {"bfloat16"}
