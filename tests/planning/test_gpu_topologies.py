import importlib.util
import json
import re
import subprocess
import sys

import pytest

from glm_jax.errors import UserError
from glm_jax.planning import gpu_topologies
from glm_jax.planning.chips import CHIPS
from glm_jax.planning.gpu_topologies import gpu_devices, target_config

needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_plugins") is None
    or importlib.util.find_spec("jax_plugins.xla_cuda13") is None,
    reason="jax's packages for CUDA are not installed",
)


def values(text):
    return dict(re.findall(r"(\w+): ([^\s}]+)", text))


def test_the_description_of_an_h100_has_the_figures_that_xla_asks_for():
    text = target_config(CHIPS["h100"])
    found = values(text)
    # NVIDIA's paper on Hopper: 132 multiprocessors, 228 KiB shared, 227 of them for one block.
    assert found["core_count"] == "132"
    assert found["shared_memory_per_core"] == "233472"
    assert found["shared_memory_per_block_optin"] == "232448"
    assert found["l2_cache_size"] == "52428800"
    assert "major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES" in text
    assert abs(int(found["device_memory_size"]) / 84942979072 - 1) < 1e-3


@pytest.mark.parametrize("name", ["a100", "h100", "h200"])
def test_the_matrix_units_make_the_published_peak(name):
    chip = CHIPS[name]
    found = values(target_config(chip))
    units = chip.multiprocessors * int(found["units_per_core"]) * int(found["ops_per_clock"])
    clock = float(re.search(r"key: 16 value \{ clock_rate_ghz: ([\d.]+)", target_config(chip))[1])
    assert pytest.approx(2 * units * clock * 1e9, rel=1e-3) == chip.peak_flops


def test_without_the_packages_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gpu_topologies, "_is_installed", lambda module: False)
    with pytest.raises(UserError, match=r"planning for h100 .* pip install -e .*cuda.*'"):
        gpu_devices(CHIPS["h100"], 8)


def test_a_package_is_installed_or_not():
    assert gpu_topologies._is_installed("json.decoder")
    assert not gpu_topologies._is_installed("json.no_such")
    assert not gpu_topologies._is_installed("no_such.module")


BOARD = """
import json, os
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from glm_jax.planning.chips import chip_of
from glm_jax.planning.hlo import hlo_cost
from glm_jax.planning.program import planning_options
from glm_jax.planning.topologies import topology_devices

devices = topology_devices("h100:8")
mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,), devices=devices)
x = jax.ShapeDtypeStruct((65536, 4096), jnp.bfloat16, sharding=NamedSharding(mesh, P("a")))
w = jax.ShapeDtypeStruct((7, 4096, 4096), jnp.bfloat16, sharding=NamedSharding(mesh, P(None, "a")))
f = lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]
compiled = jax.jit(f).lower(x, w).compile(compiler_options=planning_options(mesh))
cost = hlo_cost(compiled.as_text(), 8, 1.98e9)
ideal = 7 * 2 * 8192 * 4096 * 4096 / 989e12
print(json.dumps({
    "chip": chip_of(devices[0]).name,
    "devices": len(devices),
    "share": ideal / cost.seconds,
    "gathered": sum(c.num_bytes for c in cost.collectives if c.kind == "all-gather"),
    "trips": [loop.trips for loop in cost.loops],
}))
"""


@pytest.mark.processes
@needs_cuda
def test_a_board_that_is_not_there_compiles_and_its_products_take_about_what_they_should():
    done = subprocess.run(
        [sys.executable, "-c", BOARD], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["chip"], made["devices"], made["trips"]) == ("h100", 8, [7])
    # Every matrix is gathered once, in bfloat16.
    assert made["gathered"] == 7 * 4096 * 4096 * 2
    assert 0.5 < made["share"] < 0.9
