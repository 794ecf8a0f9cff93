"""Where parameters go."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from glm_jax.config import ComputeConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.params import abstract_params
from glm_jax.models.trees import to_paths
from glm_jax.sharding.rules import logical_axes, param_shardings, param_spec
from tests.meshes import abstract_mesh

CONFIG = ModelConfig(
    vocab_size=64, num_layers=2, embed_dim=32, num_heads=4, max_positions=16
).resolved(ComputeConfig(scan_layers=False))


def test_one_table_says_where_a_parameter_goes():
    specs = {
        path: leaf.sharding.spec
        for path, leaf in to_paths(abstract_params(CONFIG, abstract_mesh(1, 2, 2))).items()
    }
    assert specs["embedding/table"] == P("tensor", "fsdp")
    assert specs["positions/block_table"] == P(None, "fsdp")
    assert specs["layers/attention/query/kernel"] == P(None, "fsdp", "tensor", None)
    assert specs["layers/attention/out/kernel"] == P(None, "tensor", None, "fsdp")
    assert specs["layers/mlp/up/kernel"] == P(None, "fsdp", "tensor")
    assert specs["layers/mlp/down/kernel"] == P(None, "tensor", "fsdp")
    assert specs["layers/mlp/down/bias"] == P(None, None)
    assert specs["final_norm/scale"] == P(None)


def test_widths_are_split_over_fsdp_and_sequence_together():
    """Rows are long where they are split: no device holds parameters that its neighbour holds."""
    mesh = abstract_mesh(1, 2, 2, 4)
    specs = {
        path: leaf.sharding.spec for path, leaf in to_paths(abstract_params(CONFIG, mesh)).items()
    }
    width = ("fsdp", "sequence")
    assert specs["embedding/table"] == P("tensor", width)
    assert specs["positions/table"] == P(None, width)
    assert specs["layers/attention/query/kernel"] == P(None, width, "tensor", None)
    assert specs["layers/mlp/down/kernel"] == P(None, "tensor", width)
    assert specs["layers/mlp/down/bias"] == P(None, None)
    # 36 is 2 x 18, but no multiple of 2 x 4: whole over "sequence".
    up = "layers/0/mlp/up/kernel"
    assert param_spec(up, (36, 128), mesh) == P("fsdp", "tensor")
    shape = NamedSharding(mesh, param_spec(up, (32, 128), mesh)).shard_shape((32, 128))
    assert shape == (32 // 8, 128 // 2)


def test_a_prefix_is_split_by_its_hidden_layer_and_by_key_heads():
    asked = dataclasses.replace(CONFIG, prefix_length=3, prefix_projection=8, prefix_embed_dim=5)
    specs = {
        path: leaf.sharding.spec
        for path, leaf in to_paths(abstract_params(asked, abstract_mesh(1, 2, 2))["prefix"]).items()
    }
    assert specs == {
        "rows/table": P(None, None),
        "up/kernel": P(None, "fsdp"),
        "up/bias": P(None),
        "down/kernel": P("fsdp", None, None, "tensor", None),
        "down/bias": P(None, None, "tensor", None),
    }
    plain = dataclasses.replace(CONFIG, prefix_length=3)
    table = abstract_params(plain, abstract_mesh(1, 2, 2))["prefix"]["table"]
    assert table.sharding.spec == P(None, None, None, "tensor", None)


def test_key_heads_that_cannot_be_split_are_whole_on_every_device():
    """Two key heads over four devices: each has both, and still its part of D over fsdp."""
    mesh = abstract_mesh(fsdp=2, tensor=4)
    for name in ("key", "value"):
        kernel = f"layers/0/attention/{name}/kernel"
        assert param_spec(kernel, (32, 2, 8), mesh) == P("fsdp", None, None)
        assert param_spec(kernel, (32, 4, 8), mesh) == P("fsdp", "tensor", None)
        assert param_spec(f"layers/0/attention/{name}/bias", (2, 8), mesh) == P(None, None)


def test_stacked_layers_have_an_axis_in_front():
    assert logical_axes("layers/7/mlp/up/kernel", 2) == ("embed", "mlp")
    assert logical_axes("layers/mlp/up/kernel", 3) == ("layers", "embed", "mlp")
    assert logical_axes("layers/attention_norm/scale", 2) == ("layers", "norm")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("layers/0/mlp/router/kernel", (32, 128), "layers/0/mlp/router/kernel has no rule"),
        ("layers/0/mlp/up/kernel", (32, 4, 32), "up/kernel has 3 dimensions"),
        ("embedding/table", (63, 32), r"embedding/table \(63, 32\): .*'vocab' of size 63 .*=2"),
        ("layers/0/attention/query/kernel", (32, 3, 8), r"'heads' of size 3 .*mesh.tensor=2"),
        ("layers/0/mlp/down/kernel", (128, 33), r"'embed' of size 33 .*mesh.fsdp=2"),
    ],
)
def test_what_cannot_be_placed_is_named(name, shape, message):
    params = {name: jax.ShapeDtypeStruct(shape, np.float32)}
    with pytest.raises(UserError, match=message):
        param_shardings(params, abstract_mesh(2, 2, 2))
