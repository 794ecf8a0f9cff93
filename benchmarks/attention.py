"""Memory of attention on a TPU, by backend and length, compiled ahead of time: no TPU is needed.

python benchmarks/attention.py [--topology v5e:1x1] [--lengths 2048 8192 32768] [--kv-heads 2]

Every program is attention alone on one chip, in bfloat16, with 8192 places a batch (one row where a
row is longer). Bounds are arguments, and memory does not depend on them. Queries, keys and values
come as projections write them, [B, T, N H]. "forward" gives the output, "both" the gradients of its
sum. `temp_gib` is what a program needs beside its arguments and results, `peak_gib` the most at any
time, both from the compiler's own assignment of buffers; "out of memory" is a result. Seconds are
the compiler's: nothing runs. The last line is a JSON object.
"""

import argparse
import json
import os
import platform
import time
from typing import Any

PLACES = 8192
GIB = 2**30


def measure(args: argparse.Namespace, mesh, backend: str, length: int, both: bool) -> dict:
    """Compiles one program; its memory, or why it cannot be."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from glm_jax.attention.dispatch import attention

    batch = max(1, PLACES // length)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def heads(count: int) -> jax.ShapeDtypeStruct:
        shape = (batch, length, count * args.head_dim)
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=everywhere)

    def run(q, k, v, start, end):
        q, k, v = (x.reshape(batch, length, -1, args.head_dim) for x in (q, k, v))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return attention(q, k, v, start, end, backend=backend).reshape(batch, length, -1)

    def gradients(q, k, v, start, end):
        total = lambda q, k, v: run(q, k, v, start, end).astype(jnp.float32).sum()  # noqa: E731
        return jax.grad(total, argnums=(0, 1, 2))(q, k, v)

    bounds = jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=everywhere)
    inputs = (heads(args.heads), heads(args.kv_heads), heads(args.kv_heads), bounds, bounds)
    result: dict[str, Any] = {
        "backend": backend,
        "length": length,
        "batch": batch,
        "pass": "both" if both else "forward",
    }
    began = time.perf_counter()
    try:
        memory = jax.jit(gradients if both else run).lower(*inputs).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return result | {"error": "out of memory", "detail": _wanted(str(error))}
    return result | {
        "temp_gib": round(memory.temp_size_in_bytes / GIB, 4),
        "peak_gib": round(memory.peak_memory_in_bytes / GIB, 4),
        "compile_seconds": round(time.perf_counter() - began, 1),
    }


def _wanted(message: str) -> str:
    """The compiler's sentence on how much was asked for."""
    lines = [line.strip() for line in message.splitlines() if "exceeded" in line.lower()]
    return (lines or message.splitlines())[0][:160]


def main() -> None:
    """Prints a line a program, then the JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--topology", default="v5e:1x1", help="one chip of it is compiled for")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--heads", type=int, default=32, help="query heads")
    parser.add_argument("--kv-heads", type=int, default=32, help="key heads")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--backends", nargs="+", default=["pallas_tpu", "xla_chunked", "xla"])
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from glm_jax.config import MeshConfig
    from glm_jax.planning.topologies import topology_devices
    from glm_jax.sharding.mesh import make_mesh

    mesh = make_mesh(MeshConfig(), topology_devices(args.topology)[:1])
    results = []
    for length in args.lengths:
        for backend in args.backends:
            for both in (False, True):
                results.append(measure(args, mesh, backend, length, both))
                print(json.dumps(results[-1]), flush=True)
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    shape = {"heads": args.heads, "kv_heads": args.kv_heads, "head_dim": args.head_dim}
    line = {"topology": args.topology, **shape, "results": results, "versions": versions}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
