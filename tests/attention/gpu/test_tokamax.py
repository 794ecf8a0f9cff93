import importlib.metadata
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.call import make_call
from glm_jax.attention.dispatch import BACKENDS, attention
from glm_jax.attention.gpu import interval_attention, tokamax
from glm_jax.attention.gpu.interval_attention import refuses_gpu, run_gpu
from glm_jax.attention.gpu.tokamax import refuses_tokamax, run_tokamax
from glm_jax.attention.intervals import HIDDEN
from glm_jax.attention.tpu.interval_attention import declines_few
from glm_jax.attention.xla import dense
from tests.attention.against_dense import traced_call
from tests.meshes import GPU, abstract_mesh

DROPPING = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}


def on_gpu():
    return jax.sharding.use_abstract_mesh(abstract_mesh(device=GPU))


def shapes(length=512, head_dim=128, dtype=jnp.bfloat16):
    q = jax.ShapeDtypeStruct((2, length, 4, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((2, length), jnp.int32)
    return q, q, q, bounds, bounds


def call(*shape, dropout_rate=0.0, dropout_key=None, **kind):
    dropout = {"dropout_rate": dropout_rate, "dropout_key": dropout_key}
    return traced_call(shapes(*shape, **kind), **dropout)


def draw(length=150, head_dim=32):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, length, n, head_dim)).astype(np.float32) for n in (4, 2, 2))
    end = np.minimum(np.arange(length, dtype=np.int32) + 5, 120)[None].repeat(2, 0)
    start = end // 2
    start[1, 40:50], end[1, 40:50] = 90, 7
    return q, k, v, start, end


@pytest.fixture
def hopper(monkeypatch):
    """As if the machine had an H100 and a tokamax that is known."""
    for module in (interval_attention, tokamax):
        monkeypatch.setattr(module, "compute_capability", lambda: 9.0)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.17")
    monkeypatch.setattr(tokamax, "_import_trouble", lambda: None)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="says what it says elsewhere")
def test_without_a_gpu_both_say_so():
    for refuses in (refuses_gpu, refuses_tokamax):
        assert "needs an NVIDIA GPU; this is for" in refuses(call())
    with pytest.raises(ValueError, match=r"pallas_gpu: needs an NVIDIA GPU; .* xla: works here"):
        attention(*[jnp.zeros(x.shape, x.dtype) for x in shapes(8)], backend="pallas_gpu")


def test_on_a_gpu_it_serves_or_says_why_not(monkeypatch):
    with on_gpu():
        assert refuses_gpu(call()) is None
        assert "head_dim" in refuses_gpu(call(head_dim=80))
        assert "float16" in refuses_gpu(call(dtype=jnp.float16))
        assert "rate 0.1" in refuses_gpu(call(**DROPPING))
        assert refuses_gpu(call(dropout_rate=0.1)) is None
        monkeypatch.setattr(interval_attention, "compute_capability", lambda: 7.5)
        assert "this GPU has 7.5" in refuses_gpu(call())


def test_several_devices_without_a_mesh_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert "4 devices and no mesh" in refuses_gpu(call())


def test_tokamax_serves_what_was_read_of_it(monkeypatch, hopper):
    with on_gpu():
        assert refuses_tokamax(call()) is None
        assert "bfloat16; got float32" in refuses_tokamax(call(dtype=jnp.float32))
        assert "rate 0.1" in refuses_tokamax(call(**DROPPING))
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.18")
        reason = refuses_tokamax(call())
        assert reason == "knows tokamax 0.0.17; installed is 0.0.18"
        monkeypatch.setattr(tokamax, "compute_capability", lambda: 8.0)
        assert "(Hopper); got 8.0" in refuses_tokamax(call())


def test_tokamax_that_is_missing_is_said(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(tokamax, "compute_capability", lambda: 9.0)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with on_gpu():
        assert refuses_tokamax(call()) == "the package tokamax is not installed"


def test_tokamax_that_does_not_import_is_said_and_left_out(monkeypatch, hopper):
    """Its own packages may be missing: on an H200 without xprof "auto" ended in its traceback."""
    monkeypatch.undo()
    monkeypatch.setattr(tokamax, "compute_capability", lambda: 9.0)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.17")
    tokamax._import_trouble.cache_clear()
    monkeypatch.setitem(sys.modules, "tokamax", None)
    with on_gpu():
        reason = refuses_tokamax(call())
    tokamax._import_trouble.cache_clear()
    assert reason.startswith("tokamax 0.0.17 is installed and cannot be imported: ModuleNotFound")


def test_decoding_is_left_to_others():
    assert "few" in declines_few(call(1))
    assert declines_few(call(64)) is None


def first_choice(monkeypatch, *arguments, **options):
    """The name that "auto" takes; a backend that is chosen only says so."""
    chosen = []
    for name, backend in list(BACKENDS.items()):

        def run(call, name=name):
            chosen.append(name)
            return call.q, jnp.zeros(call.q.shape[:3])

        fields = (run, backend.refuses, backend.declines, backend.merges)
        monkeypatch.setitem(BACKENDS, name, type(backend)(*fields))
    attention(*[jnp.zeros(x.shape, x.dtype) for x in arguments], **options)
    return chosen[0]


def test_auto_goes_from_our_kernel_to_xla(monkeypatch, hopper):
    def choice(*arguments, **options):
        with on_gpu(), monkeypatch.context() as patch:
            return first_choice(patch, *arguments, **options)

    assert choice(*shapes()) == "pallas_gpu"
    assert choice(*shapes(), backend="tokamax") == "tokamax"
    assert choice(*shapes(dtype=jnp.float32)) == "pallas_gpu"
    assert choice(*shapes(head_dim=80, dtype=jnp.float32)) == "xla"
    assert choice(*shapes(1)) == "xla"
    dropout = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
    assert choice(*shapes(2560), **dropout) == "xla_chunked"
    prefix = (jnp.zeros((3, 4, 128)),) * 2
    assert choice(*shapes(), prefix=prefix) == "pallas_gpu"
    with pytest.raises(ValueError, match="tokamax: takes no prefix"):
        choice(*shapes(), prefix=prefix, backend="tokamax")


def test_our_kernel_computes_what_the_reference_does():
    arguments, options = draw(), {"scale": 0.3}
    ours = run_gpu(make_call(*arguments, **options), interpret=True)
    for one, other in zip(ours, dense(make_call(*arguments, **options)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


class Mask:
    """Takes what tokamax's takes of it."""

    def __init__(self, *, k_start, k_end):
        self.k_start, self.k_end = k_start, k_end


class Operator:
    """Answers as tokamax 0.0.17 does: largest score and sum of exponentials beside the output."""

    def __call__(self, q, k, v, *, logits_scale, mask, return_residuals):
        assert return_residuals
        assert mask.k_start.shape == mask.k_end.shape == (q.shape[0], 1, q.shape[1])
        bounds = mask.k_start[:, 0], mask.k_end[:, 0]
        # No block may be sent to keys by a query that sees none.
        assert (bounds[0] <= bounds[1]).all()
        out, lse = dense(make_call(q, k, v, *bounds, scale=logits_scale))
        lse = jnp.moveaxis(lse, 1, 2)
        empty = lse == HIDDEN
        largest = jnp.where(empty, -jnp.inf, lse - 1.0)
        return out, (largest, jnp.where(empty, 0.0, jnp.e))


def test_tokamax_is_asked_for_intervals_and_its_residuals_are_read(monkeypatch):
    root = "tokamax._src.ops.attention"
    for name, contents in (
        (f"{root}.base", {"Mask": Mask}),
        (f"{root}.pallas_mosaic_gpu", {"PallasMosaicGpuFlashAttention": Operator}),
    ):
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("tokamax", "tokamax._src", "tokamax._src.ops", root):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    arguments, options = [jnp.asarray(x) for x in draw()], {"scale": 0.3}
    ours = run_tokamax(make_call(*arguments, **options))
    expected = dense(make_call(*arguments, **options))
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
