"""The kernels, interpreted on CPU, against the dense reference and against what they promise."""

import functools
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
from glm_jax.attention.dropout import mask_rows
from glm_jax.attention.tpu.interval_attention import (
    block_sizes,
    declines_few,
    interval_attention,
    refusal,
    refuses_tpu,
    run_tpu,
)
from glm_jax.attention.xla import dense
from tests.attention.against_dense import (
    any_intervals,
    check,
    check_blocks_unseen,
    check_empty_intervals,
    check_rounded,
    draw,
    kernels_of_a_layer,
    packed_rows,
    results,
    traced_call,
)
from tests.meshes import TPU, abstract_mesh

NAMES = ["forward", "query_gradient", "key_gradient"]


def both(*arguments, rate=0.0, blocks=(128, 128)):
    """`results` of the kernel and of the reference."""
    q, k = arguments[:2]
    key, scale = jax.random.key(5), 1.3 * q.shape[-1] ** -0.5

    def kernel(*arguments):
        shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        rows = mask_rows(key, shape) if rate else None
        options = {"dropout_rate": rate, "mask_rows": rows, "blocks": blocks, "interpret": True}
        return interval_attention(*arguments, scale=scale, **options)

    def reference(*arguments):
        options = {"dropout_rate": rate, "dropout_key": key if rate else None}
        return dense(make_call(*arguments, scale=scale, **options))

    return results(kernel, *arguments), results(reference, *arguments)


@pytest.mark.parametrize(
    ("num_kv_heads", "head_dim", "rate"),
    [(4, 64, 0.0), (4, 64, 0.25), (2, 128, 0.0), (2, 64, 0.25), (1, 40, 0.1)],
)
def test_packed_rows_with_padding(num_kv_heads, head_dim, rate):
    kv = (2, 384, num_kv_heads, head_dim)
    q, k, v = draw((2, 384, 4, head_dim), kv, kv)
    check(*both(q, k, v, *packed_rows(384), rate=rate))


@pytest.mark.parametrize("blocks", [(128, 256), (384, 128)])
def test_block_sizes_change_nothing(blocks):
    q, k, v = draw((2, 384, 2, 16), (2, 384, 1, 16), (2, 384, 1, 16))
    check(*both(q, k, v, *packed_rows(384), blocks=blocks))


@pytest.mark.parametrize(
    ("length", "size", "rate"), [(1, 300, 0.0), (130, 520, 0.1), (300, 7, 0.0)]
)
def test_any_lengths_of_queries_and_keys(length, size, rate):
    q, k, v = draw((2, length, 2, 16), (2, size, 2, 16), (2, size, 2, 16))
    check(*both(q, k, v, *any_intervals(length, size), blocks=None, rate=rate))


def test_a_part_of_the_queries_sees_the_keys_of_the_whole_row():
    """As a device has it whose axis splits the slots: its bounds stay indices into the row."""
    q, k, v = draw((2, 384, 2, 16), (2, 384, 2, 16), (2, 384, 2, 16))
    start, end = packed_rows(384)
    part = slice(100, 290)
    run = jax.jit(functools.partial(interval_attention, blocks=(128, 128), interpret=True))
    whole, _ = run(q, k, v, start, end)
    ours, _ = run(q[:, part], k, v, start[:, part], end[:, part])
    np.testing.assert_allclose(ours, whole[:, part], atol=1e-6)


def test_the_empty_interval_gives_exactly_zero_and_no_gradient():
    run = functools.partial(interval_attention, blocks=(128, 128), interpret=True)
    check_empty_intervals(run, *draw(*[(1, 256, 2, 16)] * 3))


def test_blocks_that_nobody_sees_are_not_touched():
    run = functools.partial(interval_attention, blocks=(128, 128), interpret=True)
    check_blocks_unseen(run, *draw(*[(1, 384, 2, 16)] * 4))


def test_bfloat16_rounds_what_the_reference_rounds():
    kv = (2, 384, 2, 64)
    q, k, v = draw((2, 384, 4, 64), kv, kv, dtype=jnp.bfloat16)
    check_rounded(*both(q, k, v, *packed_rows(384)))


@pytest.mark.parametrize("saved", [(), ("attention_out", "attention_lse")])
def test_a_policy_can_save_what_the_backward_pass_needs(saved):
    run = functools.partial(interval_attention, interpret=True)
    counts = kernels_of_a_layer(run, *draw((1, 128, 2, 16)), saved)
    expected = [1 if saved else 2, 1, 1]
    assert [counts[f"interval_attention_{name}"] for name in NAMES] == expected


def shape(length, heads=2, head_dim=128, dtype=jnp.bfloat16, batch=1):
    return jax.ShapeDtypeStruct((batch, length, heads, head_dim), dtype)


@pytest.mark.parametrize(
    ("q", "k", "rate", "reason"),
    [
        (shape(64, head_dim=264), shape(64, head_dim=264), 0.0, "at most 256; got 264"),
        (shape(64, dtype=jnp.float16), shape(64, dtype=jnp.float16), 0.0, "float16"),
        (shape(64), shape(64, dtype=jnp.float32), 0.0, "bfloat16, float32"),
        (shape(64), shape(64), 1.0, "below 1; got 1.0"),
        (shape(1 << 19), shape(1 << 19), 0.0, "524288 steps does not fit"),
    ],
)
def test_what_it_cannot_do_is_said(q, k, rate, reason):
    assert reason in refusal(q, k, rate)


def test_what_it_can_do():
    assert refusal(shape(1 << 17), shape(1 << 17)) is None
    assert refusal(shape(1, head_dim=8), shape(100, head_dim=8), 0.1) is None
    assert refusal(shape(2048, dtype=jnp.float32), shape(2048, dtype=jnp.float32)) is None


def test_long_rows_have_wider_blocks_of_keys_where_they_fit():
    assert block_sizes(shape(512), shape(512)) == (512, 512)
    assert block_sizes(shape(8192), shape(8192)) == (512, 1024)
    assert block_sizes(shape(1024), shape(8192)) == (512, 1024)
    wide = shape(8192, head_dim=256, dtype=jnp.float32)
    assert block_sizes(wide, wide) == (512, 512)


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
@pytest.mark.nightly  # half a minute
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
