"""A model of any directory, read once for `glm_jax.load` and for `train.init_from`."""

import jax
import numpy as np
import pytest

from glm_jax.checkpoints.loading import load_model, with_adapter
from glm_jax.checkpoints.params import save_params
from glm_jax.errors import UserError
from glm_jax.models.params import create_params
from glm_jax.models.trees import unstack_layers
from glm_jax.sharding.mesh import make_mesh
from tests.interop.prefix_directories import GOLDEN, encoder, write_ptuning


def test_the_parameters_of_a_run_and_their_dtype(tmp_path, config):
    params = create_params(config.model, make_mesh(config.mesh), seed=0)
    save_params(tmp_path / "run", config.model, params)
    found = load_model(tmp_path / "run")
    assert (found.config, found.tokenizer) == (config.resolved_model, None)
    assert found.origin.directory == tmp_path / "run"
    expected = unstack_layers(params)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(found.params), expected)
    half = load_model(tmp_path / "run", "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype(jax.numpy.bfloat16)}
    assert half.config.param_dtype == "bfloat16"


def test_the_bundled_model_has_its_tokenizer():
    found = load_model("bundled")
    assert found.tokenizer.vocab_size == found.config.vocab_size == 7168
    assert found.config.param_dtype == "bfloat16"
    assert found.origin.architecture is not None


def test_a_dtype_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"dtype must be one of .*; got 'int8'"):
        load_model(tmp_path, "int8")


def test_a_prefix_joins_a_model_and_stays_float32(tmp_path):
    path = write_ptuning(tmp_path / "prefix", "chatglm2", "emb")
    base = load_model(GOLDEN / "chatglm2", "bfloat16")
    found = with_adapter(base, path)
    assert found.config.prefix_length == 4
    assert found.config.compute == base.config.compute
    assert found.config.param_dtype == "bfloat16"
    table = found.params["prefix"]["table"]
    assert (table.dtype, table.shape) == ("float32", (2, 2, 4, 2, 16))
    (stored,) = encoder("chatglm2", "emb").values()
    np.testing.assert_array_equal(table[1, 0, 3], stored[3].reshape(2, 2, 2, 16)[1, 0])
    assert "prefix" not in base.params
    with pytest.raises(UserError, match=r"has a prefix of its own \(model.prefix_length=4\)"):
        with_adapter(found, path)
