"""A model in memory is quantised to what its directory is quantised to."""

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.adapters.quantised import arrays_by_name, quantised_in
from glm_jax.adapters.quantising import Quantize
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models.params import create_params
from glm_jax.models.trees import to_paths, unstack_layers
from glm_jax.models.weights import Master
from glm_jax.sharding.mesh import make_mesh

MESH = make_mesh(MeshConfig(), jax.devices()[:1])
HOWS = [Quantize(8), Quantize(4), Quantize(4, 16, search=True, embedding=True)]


@pytest.fixture
def drawn(config):
    return lambda: create_params(config.resolved_model, MESH, seed=0)


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("stacked", [False, True])
def test_a_run_is_quantised_as_its_directory(tmp_path, config, drawn, how, stacked):
    lm = glm_jax.LanguageModel(config.resolved_model, drawn())
    lm.save(tmp_path / "files")
    expected = glm_jax.load(tmp_path / "files", quantize=how).params
    params = drawn() if stacked else unstack_layers(drawn())
    found = quantise_params(params, MESH, how)
    assert not params  # released one by one
    assert to_paths(found).keys() == to_paths(drawn() if stacked else expected).keys()
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(found), expected)
    if not stacked:
        for name, leaf in arrays_by_name(expected).items():
            ours = arrays_by_name(found)[name].sharding
            assert ours.is_equivalent_to(leaf.sharding, leaf.ndim), name
    with pytest.raises(UserError, match="quantised already"):
        quantise_params(found, MESH, how)


def test_other_kinds_of_weights_are_quantised_as_what_they_stand_for(drawn):
    params, plain = drawn(), drawn()
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    params["layers"]["mlp"]["up"]["kernel"] = Master(kernel, kernel)
    found, expected = (quantise_params(tree, MESH, Quantize(4)) for tree in (params, plain))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_of_a_workdir(tmp_path, config, drawn):
    glm_jax.LanguageModel(config.resolved_model, drawn()).save(tmp_path / "run", format="orbax")
    lm = glm_jax.load(tmp_path / "run", quantize="int4")
    expected = quantise_params(unstack_layers(drawn()), MESH, Quantize(4))
    jax.tree.map(np.testing.assert_array_equal, lm.params, expected)
    lm.save(tmp_path / "int4", format="orbax")
    again = glm_jax.load(tmp_path / "int4", dtype="bfloat16")
    for ours, theirs in zip(quantised_in(again.params), quantised_in(expected), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert again.params["embedding"]["table"].dtype == "bfloat16"
    with pytest.raises(UserError, match="quantised already"):
        glm_jax.load(tmp_path / "int4", quantize="int8")
    lm.save(tmp_path / "plain", format="orbax", dequantize=True)
    assert not any(quantised_in(glm_jax.load(tmp_path / "plain").params))
