import ast
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from glm_jax import errors
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.params import abstract_params, to_paths
from glm_jax.sharding import (
    AXES,
    batch_sharding,
    dividing,
    logical_axes,
    make_mesh,
    param_shardings,
    param_spec,
    replicated,
    with_mesh_of_params,
)

CONFIG = ModelConfig(
    vocab_size=64, num_layers=2, embed_dim=32, num_heads=4, max_positions=16, scan_layers=False
)


def abstract_mesh(data=1, fsdp=1, tensor=1, sequence=1):
    return AbstractMesh((data, fsdp, tensor, sequence), AXES, axis_types=(AxisType.Auto,) * 4)


def test_the_rest_of_the_devices_go_to_the_axis_of_minus_one():
    mesh = make_mesh(MeshConfig())
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "tensor": 1, "sequence": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert batch_sharding(mesh).spec == P(("data", "fsdp"), "sequence")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=-1, fsdp=3), r"multiple of 3 devices; there are 8; .*\(\d, \d, \d, \d\)"),
        (
            MeshConfig(data=4, fsdp=4),
            r"mesh.data=4, mesh.fsdp=4, mesh.tensor=1, mesh.sequence=1 .* 16 devices",
        ),
        (MeshConfig(data=2, fsdp=2, tensor=1), r"4 devices; there are 8; .*\(2, 2, 2, 1\)"),
    ],
)
def test_a_mesh_that_does_not_fit_names_both_numbers_and_what_does(config, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config, devices=range(8))


def test_one_table_says_where_a_parameter_goes():
    specs = {
        path: leaf.sharding.spec
        for path, leaf in to_paths(abstract_params(CONFIG, abstract_mesh(1, 2, 2))).items()
    }
    assert specs["embedding/table"] == P("tensor", "fsdp")
    assert specs["positions/block_table"] == P(None, "fsdp")
    assert specs["layers/1/attention/query/kernel"] == P("fsdp", "tensor", None)
    assert specs["layers/1/attention/out/kernel"] == P("tensor", None, "fsdp")
    assert specs["layers/1/mlp/up/kernel"] == P("fsdp", "tensor")
    assert specs["layers/1/mlp/down/kernel"] == P("tensor", "fsdp")
    assert specs["layers/1/mlp/down/bias"] == P(None)
    assert specs["final_norm/scale"] == P(None)


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


def test_axes_that_do_not_divide_are_left_out_and_named_once(caplog, monkeypatch):
    monkeypatch.setattr(errors, "_SAID", set())
    mesh = abstract_mesh(2, 3, 1, 4)
    assert dividing(("data", "fsdp"), 12, mesh, "rows") == ("data", "fsdp")
    assert dividing("sequence", 8, mesh, "slots") == ("sequence",)
    assert dividing("tensor", 1, mesh) == ("tensor",)
    assert not caplog.messages
    for rows in (8, 4):
        assert dividing(("data", "fsdp"), rows, mesh, "rows") == ("data",)
    assert dividing(("data", "fsdp"), 9, mesh) == ("fsdp",)
    # A step of decoding has one slot: there is nothing to split.
    assert dividing("sequence", 1, mesh, "slots") is None
    assert caplog.messages == [
        "8 rows cannot be split over mesh.fsdp=3, so its devices all compute the same"
    ]


def test_a_call_with_parameters_has_their_mesh():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    seen = []

    @with_mesh_of_params
    @jax.jit
    def run(params, x):
        seen.append(jax.sharding.get_abstract_mesh().axis_names)
        return params["a"] + x

    run({"a": jax.device_put(np.zeros(3, np.float32), replicated(mesh))}, 1.0)
    run({"a": jax.numpy.zeros(3)}, 1.0)
    assert seen == [AXES, ()]


def test_all_that_computes_with_parameters_for_inference_has_their_mesh():
    """Every jitted function of glm_jax.inference whose first argument is parameters."""
    found, bare = 0, []
    for path in sorted((Path(errors.__file__).parent / "inference").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.args.args:
                continue
            names = [ast.unparse(decorator) for decorator in node.decorator_list]
            if node.args.args[0].arg == "params" and any("jax.jit" in name for name in names):
                found += 1
                bare += [f"{path.name}: {node.name}"] * (names[0] != "with_mesh_of_params")
    assert found >= 10
    assert not bare


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "printed"), [([], ["2x2x2x1", "1x2x4x1", "1x2x2x2"]), (["inference"], [])]
)
def test_eight_devices_compute_what_one_does(arguments, printed):
    script = Path(__file__).with_name("eight_devices.py")
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == printed
