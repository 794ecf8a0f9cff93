import importlib.util
import subprocess
import sys

import pytest

from glm_jax.errors import UserError
from glm_jax.planning.topologies import CHIPS, TOPOLOGIES, parse_topology, wraps_around

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_the_peak_is_that_of_the_matrix_units_at_the_clock():
    # Units of a chip x side^2 x (multiply and add) x clock.
    assert pytest.approx(4 * 128**2 * 2 * CHIPS["v5e"].clock_hz, rel=0.01) == 197e12
    assert pytest.approx(8 * 128**2 * 2 * CHIPS["v5p"].clock_hz, rel=0.01) == 459e12
    assert pytest.approx(8 * 128**2 * 2 * CHIPS["v4"].clock_hz, rel=0.01) == 275e12


def test_links_carry_the_published_bandwidth_of_a_chip():
    both_ways = {name: 2 * chip.links * chip.link_bandwidth for name, chip in CHIPS.items()}
    assert both_ways == {"v4": 600e9, "v5e": 400e9, "v5p": 1200e9, "v6e": 800e9}


@pytest.mark.parametrize(
    ("name", "wraps"),
    [
        ("v5e:4x4", (False, False, False)),
        ("v5e:8x16", (False, True, False)),
        ("v6e:16x16", (True, True, False)),
        ("v5p:2x4x4", (False, False, False)),
        ("v5p:4x4x4", (True, True, True)),
        ("v5p:8x12x16", (True, True, True)),
    ],
)
def test_which_axes_wrap_around(name, wraps):
    assert wraps_around(*parse_topology(name)) == wraps


@pytest.mark.parametrize(
    "name", ["v5e", "v5e:", "v5e:4", "v5e:3x3", "v5e:4x4x4", "v5p:4x4", "v5p:0x4x4", "v5p:8x4x4"]
)
def test_an_unknown_topology_lists_the_known(name):
    with pytest.raises(UserError, match=f"no topology '{name}'.* v5e: 1x1 2x2 2x4 4x4 4x8 .*v6e"):
        parse_topology(name)


def test_the_nearest_topology_is_offered():
    with pytest.raises(UserError, match="did you mean 'v5e:16x16'"):
        parse_topology("v5e-16x16")
    assert all(parse_topology(name) for name in TOPOLOGIES)


@pytest.mark.processes
@needs_libtpu
def test_devices_lie_in_the_order_of_their_coordinates_and_libtpu_keeps_quiet():
    done = run(
        "from glm_jax.planning.topologies import *\n"
        "for name in ('v5e:1x1', 'v5e:2x4', 'v6e:2x2', 'v5p:2x2x2', 'v4:2x2x1'):\n"
        "    devices = topology_devices(name)\n"
        "    assert chip_of(devices[0]).name == name[: name.index(':')]\n"
        "    print(len(devices), *(''.join(map(str, d.coords)) for d in devices))\n"
    )
    assert done.stdout.splitlines() == [
        "1 000",
        "8 000 010 020 030 100 110 120 130",
        "4 000 010 100 110",
        "8 000 001 010 011 100 101 110 111",
        "4 000 010 100 110",
    ]
    assert done.stderr == ""


@pytest.mark.processes
def test_without_libtpu_the_error_says_what_to_install():
    done = run(
        "from glm_jax.planning import topologies\n"
        "topologies.importlib.util.find_spec = lambda name: None\n"
        # jax sets it where it finds libtpu.
        "topologies.os.environ.pop('TPU_LIBRARY_PATH', None)\n"
        "try:\n"
        "    topologies.topology_devices('v5e:2x2')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'glm_jax[tpu]'" in done.stdout
