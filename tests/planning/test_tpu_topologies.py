import importlib.util
import subprocess
import sys

import pytest

from glm_jax.planning.topologies import parse_topology
from glm_jax.planning.tpu_topologies import wraps_around

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


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


@pytest.mark.processes
@needs_libtpu
def test_devices_lie_in_the_order_of_their_coordinates_and_libtpu_keeps_quiet():
    done = run(
        "from glm_jax.planning.chips import chip_of\n"
        "from glm_jax.planning.topologies import topology_devices\n"
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
        "from glm_jax.planning import topologies, tpu_topologies\n"
        "tpu_topologies.importlib.util.find_spec = lambda name: None\n"
        # jax sets it where it finds libtpu.
        "tpu_topologies.os.environ.pop('TPU_LIBRARY_PATH', None)\n"
        "try:\n"
        "    topologies.topology_devices('v5e:2x2')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    assert "[tpu]' -c " in done.stdout
