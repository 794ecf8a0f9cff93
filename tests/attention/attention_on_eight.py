"""Run by test_attention_sharded.py in a process of its own: every mesh attends as one device does.

Kernels are interpreted; N = 8 query heads share K = 2 key heads, so four devices along tensor need
them repeated, and eight devices do not divide the four rows.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import functools
from unittest import mock

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from glm_jax.attention.call import make_call
from glm_jax.attention.dispatch import BACKENDS, Backend, attention
from glm_jax.attention.tpu.interval_attention import run_tpu
from glm_jax.attention.xla import chunked, dense
from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import make_mesh, row_groups

B, T, N, K, H = 4, 256, 8, 2, 16
SIZES = [(2, 2, 2, 1), (1, 2, 2, 2), (1, 1, 4, 2), (8, 1, 1, 1)]


def inputs():
    rng = np.random.default_rng(0)
    shapes = [(B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, H), (B, T, N)]
    q, k, v, d_out, d_lse = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    start, end = np.zeros((B, T), np.int32), np.tile(np.arange(1, T + 1, dtype=np.int32), (B, 1))
    start[:, 100:], end[1:, 100:150], end[:, 240:] = 100, 150, 0
    return q, k, v, d_out, d_lse * (start < end)[..., None], start, end


def results(run, q, k, v, d_out, d_lse, start, end):
    options = {"scale": 0.25, "dropout_rate": 0.2, "dropout_key": jax.random.key(0)}
    outputs, gradient = jax.vjp(lambda *qkv: run(make_call(*qkv, start, end, **options)), q, k, v)
    return (*outputs, *gradient((d_out, d_lse)))


def check_prefix(mesh, placed, arguments):
    """A prefix of five keys, which no axis divides, and its gradient."""
    rng = np.random.default_rng(1)
    prefix = tuple(rng.normal(size=(2, 5, K, H)).astype(np.float32))

    def total(prefix, backend, arguments):
        q, k, v, d_out, _, start, end = arguments
        options = {"dropout_rate": 0.2, "dropout_key": jax.random.key(0), "backend": backend}
        return (attention(q, k, v, start, end, prefix=prefix, **options) * d_out).sum()

    def on_mesh(prefix, arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.value_and_grad(total)(prefix, "pallas_tpu", arguments)

    interpreted = Backend(functools.partial(run_tpu, interpret=True), lambda call: None)
    with mock.patch.dict(BACKENDS, pallas_tpu=interpreted):
        ours = jax.jit(on_mesh)(prefix, placed)
    expected = jax.jit(jax.value_and_grad(total), static_argnums=1)(prefix, "xla", arguments)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def main():
    arguments = inputs()
    expected = jax.jit(functools.partial(results, dense))(*arguments)
    runs = [functools.partial(chunked, chunk=64), functools.partial(run_tpu, interpret=True)]
    for sizes in SIZES:
        mesh = make_mesh(MeshConfig(*sizes))
        rows = ("data", "fsdp") if B % row_groups(mesh) == 0 else None
        placed = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec(rows, "sequence")))
        for run in runs:

            def on_mesh(*arguments, mesh=mesh, run=run):
                with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                    return results(run, *arguments)

            ours = jax.jit(on_mesh)(*placed)
            for one, other in zip(ours[:2], expected[:2], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
            for one, other in zip(ours[2:], expected[2:], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        check_prefix(mesh, placed, arguments)
        print("x".join(map(str, sizes)))


if __name__ == "__main__":
    main()
