"""Shapes and sums of what decoding takes; the command itself is in tests/test_plan.py."""

import dataclasses

import jax
import pytest

from glm_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.variants import VARIANTS
from glm_jax.planning.apart import Attempts
from glm_jax.planning.inference import (
    attempted_inference,
    describe_inference,
    inference_report,
    published,
)
from glm_jax.sharding.mesh import make_mesh

MODEL = ModelConfig(
    vocab_size=512,
    num_layers=2,
    embed_dim=256,
    num_heads=2,
    num_kv_heads=1,
    mlp_dim=512,
    activation="swiglu",
    norm="rms_norm",
    biases="none",
    tied_embeddings=False,
    position_encoding="rotary",
    max_positions=256,
).resolved(ComputeConfig(dtype="bfloat16"))
# Query and output 256 x 256, key and value 256 x 128, three of 256 x 512.
MATRICES = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512)
OUTPUTS = 2 * (256 + 2 * 128 + 256 + 2 * 512 + 256)
TABLES = 2 * 512 * 256
NORMS = 5 * 256
CACHE = 2 * 2 * 8 * 128 * 128 * 2  # keys and values of 2 layers, 8 rows, 128 slots


def made(device, quantize=None, batch_size=8):
    mesh = make_mesh(MeshConfig(), [device])
    return inference_report(
        MODEL, mesh, "v5e:1x1", batch_size=batch_size, context=128, quantize=quantize
    )


def test_a_step_holds_weights_and_cache():
    report = made(jax.devices()[0], batch_size=64)
    held = report["bytes_per_device"]
    assert report["parameters"] == MATRICES + TABLES + NORMS
    assert held["weights"] == 2 * report["parameters"]
    assert held["cache"] == 8 * CACHE
    # Reading 128 slots of each row holds an activation of 512 numbers for every slot.
    assert 0 < held["workspace"] < held["prefill"]
    assert held["prefill"] > 64 * 128 * 512 * 2
    most = held["weights"] + held["cache"] + held["prefill"]
    assert report["peak_hbm_gib"] == most / 2**30
    assert report["fits"]
    assert "decoding on one cpu" in describe_inference(report)


@pytest.mark.parametrize(("quantize", "part"), [("int8", 1), ("int4", 0.5)])
def test_quantised_matrices_and_their_tiles_on_a_cpu(quantize, part):
    report = made(jax.devices()[0], quantize)
    held = report["bytes_per_device"]
    scales = 2 * OUTPUTS
    assert held["weights"] == part * MATRICES + scales + 2 * (TABLES + NORMS)
    # The same integers with scales in float32, and the LM head.
    assert held["tiles"] == part * MATRICES + 2 * scales + 2 * TABLES / 2
    most = max(held["tiles"] + held["workspace"], held["prefill"])
    assert report["peak_hbm_gib"] == (held["weights"] + held["cache"] + most) / 2**30


def test_times_are_left_out_where_nothing_estimates_them():
    report = made(jax.devices()[0], batch_size=64)
    assert "tiles" not in report["bytes_per_device"]
    assert (report["step_ms"], report["memory_ms"], report["hbm_gib"]) == (None, None, None)
    assert "only compilers for TPUs" in describe_inference(report)


def test_what_cannot_be_planned_is_one_sentence(monkeypatch):
    config = Config(model=dataclasses.replace(MODEL, position_encoding="learned"))
    sizes = {"batch_size": 1, "quantize": None}
    attempts = Attempts({}, print)
    with pytest.raises(UserError, match="--context 300 is more than the model's 256 positions"):
        attempted_inference(config, None, attempts, context=300, **sizes)
    monkeypatch.setattr("glm_jax.planning.inference.topology_devices", lambda name: [1, 2])
    with pytest.raises(UserError, match="plans for one device; v5e:1x2 has 2"):
        attempted_inference(config, "v5e:1x2", attempts, context=64, **sizes)


def test_a_compiler_that_failed_is_told():
    assert describe_inference({"failed": "the compiler failed: x"}) == "the compiler failed: x"


def test_a_published_model_by_its_name():
    config = published("chatglm3-6b")
    assert config.model == VARIANTS["chatglm3-6b"]
    assert config.compute.dtype == "bfloat16"
    with pytest.raises(UserError, match=r"--model must be one of .*did you mean 'chatglm3-6b'"):
        published("chatglm-3-6b")
