"""The mesh of devices."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from glm_jax import errors
from glm_jax.config import MeshConfig
from glm_jax.errors import UserError
from glm_jax.sharding.mesh import (
    AXES,
    batch_sharding,
    dividing,
    make_mesh,
    replicated,
    with_mesh_of_params,
)
from tests.meshes import abstract_mesh
from tests.quick_flags import with_quick_flags


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
    """Every jitted function for inference whose first argument is parameters."""
    found, bare = 0, []
    package = Path(errors.__file__).parent
    for path in sorted([*package.glob("generation/*.py"), *package.glob("evaluation/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.args.args:
                continue
            names = [ast.unparse(decorator) for decorator in node.decorator_list]
            if node.args.args[0].arg == "params" and any("jax.jit" in name for name in names):
                found += 1
                bare += [f"{path.name}: {node.name}"] * (names[0] != "with_mesh_of_params")
    assert found >= 8
    assert not bare


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ([], ["1x2x2x2"]),
        pytest.param(["every"], ["2x2x2x1", "1x2x4x1", "1x2x2x2"], marks=pytest.mark.nightly),
        pytest.param(["inference"], [], marks=pytest.mark.nightly),
        pytest.param(["quantised"], [], marks=pytest.mark.nightly),
        pytest.param(["adapters"], [], marks=pytest.mark.nightly),
    ],
)
def test_eight_devices_compute_what_one_does(arguments, printed):
    script = Path(__file__).parents[1] / "eight_devices.py"
    command = [sys.executable, script, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=with_quick_flags()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == printed
