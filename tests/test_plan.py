"""The command, in processes of its own; what it computes is tested in tests/planning."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)
SMALL = """
from glm_jax.config import *

def get_config():
    return Config(
        model=ModelConfig(vocab_size=512, num_layers=2, embed_dim=256, num_heads=4,
                          max_positions=128, dropout_rate=0.0, attention_dropout_rate=0.0),
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
        data=DataConfig(sequence_length=128, batch_size=8),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return str(path)


def plan(*arguments, check=True):
    command = [sys.executable, "-m", "glm_jax.plan", "--config", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert not check or done.returncode == 0, done.stderr
    return done


@needs_libtpu
def test_a_topology_gives_one_object_with_memory_time_and_collectives(config):
    done = plan(config, "--topology", "v5e:2x2", "--sequences_per_chip", "1", "--json")
    (line,) = done.stdout.splitlines()
    made = json.loads(line)
    # The table 512 D, positions 2 * 129 D, two layers of 12 D^2 + 13 D, the last norm's 2 D.
    assert made["parameters"] == 512 * 256 + 258 * 256 + 2 * (12 * 256**2 + 13 * 256) + 2 * 256
    matrices = 2 * 12 * 256**2 + 512 * 256
    attention = 12 * 2 * 256 * 128 * made["attention_density"]
    assert made["flops_per_token"] == pytest.approx(6 * matrices + attention)
    assert (made["topology"], made["num_devices"]) == ("v5e:2x2", 4)
    assert made["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1, "sequence": 1}
    assert (made["batch_size"], made["sequences_per_chip"]) == (4, 1)
    assert made["fits"]
    assert made["bytes_per_device"]["parameters"] / 2**30 < made["peak_hbm_gib"] < 1
    assert 0 < made["compute_ms"] < made["step_ms"]
    # Every layer's matrices and the table are gathered at least once, in bfloat16.
    assert made["collective_gb"] > matrices * 2 / 1e9
    per_second = made["tokens_per_second_per_device"]
    assert per_second == pytest.approx(128 / made["step_ms"] * 1e3)
    assert made["chip_hours_for_100b_tokens"] == pytest.approx(1e11 / per_second / 3600)
    assert made["model_flops_utilisation"] == pytest.approx(
        made["flops_per_token"] * per_second / 197e12
    )


@needs_libtpu
def test_a_step_of_decoding_reads_weights_and_cache(config):
    sizes = ("--inference", "--quantize", "int8", "--batch", "8")
    made = json.loads(plan(config, "--topology", "v5e:1x1", *sizes, "--json").stdout)
    held = made["bytes_per_device"]
    matrices, outputs = 2 * 12 * 256**2, 2 * 9 * 256
    # Integers, scales in float16, and the rest in bfloat16.
    assert held["weights"] == matrices + 2 * outputs + 2 * (made["parameters"] - matrices)
    # Keys and values of 2 layers, 8 rows and 128 slots of 256, in bfloat16.
    assert held["cache"] == 2 * 2 * 8 * 128 * 256 * 2
    assert 0 < held["workspace"] < 2**21
    assert made["fits"]
    assert made["memory_ms"] == pytest.approx((held["weights"] + held["cache"]) / 819e6)
    assert made["step_ms"] == max(made["compute_ms"], made["memory_ms"]) > 0
    assert made["tokens_per_second"] == pytest.approx(8e3 / made["step_ms"])


def test_without_a_topology_the_devices_at_hand_are_planned_for(config):
    made = json.loads(plan(config, "--json").stdout)
    assert made["topology"] is None
    assert made["step_ms"] is None
    assert made["fits"]
    # Float32 parameters and two moments, whole on the one device.
    assert made["peak_hbm_gib"] > 3 * 4 * made["parameters"] / 2**30
    assert "only compilers for TPUs and Hopper GPUs estimate them" in plan(config).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5e:4x5"], "no topology 'v5e:4x5' (did you mean 'v5e:4x8'?)"),
        (["--tune_layers", "2"], "--tune_layers needs --tune"),
        (["--tune"], "only compilers for TPUs and Hopper GPUs estimate"),
    ],
)
def test_mistakes_are_one_sentence(config, arguments, message):
    done = plan(config, *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@needs_libtpu
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            ["data.batch_size=6"],
            "data.batch_size must be a multiple of 4, for 4 devices",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            ["mesh.fsdp=8"], "asks for 8 devices; there are 4; sizes", marks=pytest.mark.nightly
        ),
        (
            ["mesh.fsdp=1", "mesh.tensor=4", "model.num_heads=2"],
            "dimension 'heads' of size 2 cannot be split over mesh.tensor=4",
        ),
    ],
)
def test_what_the_slice_cannot_split_is_one_sentence(config, changes, message):
    sets = [part for change in changes for part in ("--set", change)]
    done = plan(config, "--topology", "v5e:2x2", *sets, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_a_compiler_that_aborts_is_an_object_and_status_1(config):
    script = Path(__file__).parent / "planning" / "aborting_plan.py"
    command = [sys.executable, script, "--config", config]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 1, done.stderr
    made = json.loads(done.stdout)
    assert made["failed"] == "the compiler failed: Check failed: groups"
    assert (made["fits"], made["peak_hbm_gib"], made["num_devices"]) == (None, None, 1)
    assert "Check failed" not in done.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("the compiler failed: Check failed: groups\n")
