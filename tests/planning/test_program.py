import dataclasses
import importlib.util
import subprocess
import sys

import jax
import pytest

from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig, TrainConfig
from glm_jax.planning.program import compile_program, needed_bytes, prepare, program_text

CONFIG = Config(
    ModelConfig(vocab_size=64, num_layers=1, embed_dim=16, num_heads=2, max_positions=32),
    DataConfig(sequence_length=32, batch_size=8),
    mesh=MeshConfig(data=1, sequence=-1),
)


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total "
            "memory required for HLO temporaries (27.5G) exceeds available HBM (15.75G).",
            int(27.5 * 2**30),
        ),
        (
            "Ran out of memory in memory space hbm. Used 900.00M of 15.75G hbm. Exceeded hbm",
            900 * 2**20,
        ),
        ("Ran out of memory in memory space vmem. Used 140.00M of 128.00M vmem.", None),
        ("INVALID_ARGUMENT: something else", None),
    ],
)
def test_memory_needed_is_read_from_the_compilers_error(message, needed):
    assert needed_bytes(message) == needed


def test_rows_a_chip_replace_the_batch_size():
    config, mesh = prepare(
        dataclasses.replace(CONFIG, train=TrainConfig(accumulation_steps=4)),
        jax.devices(),
        sequences_per_chip=5,
    )
    assert config.data.batch_size == 20
    assert mesh.size == jax.device_count()


def test_what_the_devices_decide_is_filled_in():
    config, _ = prepare(CONFIG, jax.devices())
    assert config.compute.scan_layers is False
    assert config.train.cross_entropy == "gradient_in_forward"


def test_the_devices_at_hand_say_how_much_memory_a_step_takes():
    program = compile_program(*prepare(CONFIG, jax.devices()))
    assert program.compiled is not None
    assert program.options == {}
    # The table, 33 positions twice, 12 D^2 and 13 vectors; three of each with the moments.
    matrices = 64 * 16 + 2 * 33 * 16 + 12 * 16 * 16
    state = 3 * 4 * (matrices + (4 + 1 + 1 + 2 + 3 + 2) * 16 + 0)
    assert program.temporary_bytes > 0
    assert program.peak_bytes > state + program.temporary_bytes


TOO_LARGE = """
import os
os.environ["JAX_PLATFORMS"] = "cpu"
from glm_jax.config import *
from glm_jax.planning.program import compile_program, prepare
from glm_jax.planning.report import report
from glm_jax.planning.topologies import topology_devices

model = ModelConfig(
    vocab_size=1024, num_layers=8, embed_dim=4096, num_heads=32,
    dropout_rate=0.0, attention_dropout_rate=0.0,
)
compute = ComputeConfig(dtype="bfloat16", remat="full")
config = Config(model, DataConfig(batch_size=1), compute=compute)
config, mesh = prepare(config, topology_devices("v5e:1x1"))
program = compile_program(config, mesh)
made = report(program, "v5e:1x1")
print(program.compiled, made["fits"], made["peak_hbm_gib"] > 12 * 12 * 4096**2 * 8 / 2**30)
print(made["compute_ms"], made["tokens_per_second_per_device"], made["hbm_gib"])
"""


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_model_too_large_is_a_result():
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["None False True", "None None 15.75"]


def test_a_program_that_jaxlib_cannot_read_back_has_no_text():
    class Unreadable:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("async-update instruction should have 1 operands")

    class Readable:
        def as_text(self):
            return "HloModule step"

    assert program_text(Unreadable()) is None
    assert program_text(Readable()) == "HloModule step"
