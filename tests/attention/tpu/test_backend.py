import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.call import make_call
from glm_jax.attention.dispatch import attention
from glm_jax.attention.tpu.backend import declines_few, refuses_tpu, run_tpu
from glm_jax.attention.xla import dense
from tests.attention.against_dense import traced_call
from tests.meshes import TPU, abstract_mesh


def shapes(length=512, head_dim=128, dtype=jnp.bfloat16, batch=2):
    q = jax.ShapeDtypeStruct((batch, length, 4, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    return q, q, q, bounds, bounds


def call(*shape, dropout_rate=0.0, dropout_key=None, **kind):
    dropout = {"dropout_rate": dropout_rate, "dropout_key": dropout_key}
    return traced_call(shapes(*shape, **kind), **dropout)


@pytest.mark.skipif(jax.default_backend() == "tpu", reason="says what it says elsewhere")
def test_without_a_tpu_it_says_so():
    assert "needs a TPU" in refuses_tpu(call())
    with pytest.raises(ValueError, match=r"pallas_tpu: needs a TPU; .* xla: works here"):
        attention(*[jnp.zeros(x.shape, x.dtype) for x in shapes(8)], backend="pallas_tpu")


def test_on_a_tpu_it_serves_or_says_why_not():
    with jax.sharding.use_abstract_mesh(abstract_mesh(device=TPU)):
        assert refuses_tpu(call()) is None
        assert "float16" in refuses_tpu(call(dtype=jnp.float16))
        assert "head_dim" in refuses_tpu(call(head_dim=512))
        every = {"dropout_rate": 1.0}
        assert refuses_tpu(call(**every)) is None
        assert "dropout" in refuses_tpu(call(**every, dropout_key=jax.random.key(0)))
        # The list of steps counts a device's rows.
        assert "scalar memory" in refuses_tpu(call(16384, batch=512))
    with jax.sharding.use_abstract_mesh(abstract_mesh(8, device=TPU)):
        assert refuses_tpu(call(16384, batch=512)) is None


def test_several_devices_without_a_mesh_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert refuses_tpu(call()) is None
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert "4 devices and no mesh" in refuses_tpu(call())


def test_decoding_is_left_to_others():
    assert "few" in declines_few(call(1))
    assert declines_few(call(64)) is None


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_it_computes_what_the_reference_does(rate):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 150, n, 8)).astype(np.float32) for n in (4, 2, 2))
    end = np.minimum(np.arange(150, dtype=np.int32) + 5, 120)[None].repeat(2, 0)
    options = {"scale": 0.3, "dropout_rate": rate, "dropout_key": jax.random.key(0)}
    ours = run_tpu(make_call(q, k, v, end // 2, end, **options), interpret=True)
    for one, other in zip(ours, dense(make_call(q, k, v, end // 2, end, **options)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.processes
@pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_v5e_compiles_it_without_memory_for_scores():
    script = Path(__file__).parents[1] / "attention_for_tpu.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    programs = json.loads(done.stdout.splitlines()[-1])
    output = 8192 * 8 * 128 * 2
    log_sums = 8192 * 8 * 4
    # Forward, query gradient, key gradient; the output is kept, and one float a query and head.
    assert programs["auto"]["kernels"] == 3
    assert programs["auto"]["temp_bytes"] < output + 4 * log_sums + 2**20
    assert programs["dropout"]["kernels"] == 3
    assert programs["dropout"]["temp_bytes"] < output + 4 * log_sums + 2**20
    # The prefix is an attention of its own.
    assert programs["prefix"]["kernels"] == 6
    assert programs["xla_chunked"]["kernels"] == 0
    assert programs["xla_chunked"]["temp_bytes"] > 8 * 512 * 8192 * 4
