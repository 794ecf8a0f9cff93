"""Run by test_attention_pallas.py in a process of its own: forward and backward for one TPU v5e."""

import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from glm_jax.attention.dispatch import attention
from glm_jax.config import MeshConfig
from glm_jax.planning.topologies import topology_devices
from glm_jax.sharding.mesh import make_mesh, replicated

LENGTH, HEADS, KV_HEADS, HEAD_DIM = 8192, 8, 2, 128


def compile_program(mesh, **options):
    def shape(*sizes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=replicated(mesh))

    def gradients(q, k, v, d_out, start, end, key, prefix):
        def run(q, k, v, prefix):
            q, k, v = (x.reshape(1, LENGTH, -1, HEAD_DIM) for x in (q, k, v))
            extra = {"dropout_key": jax.random.wrap_key_data(key), "prefix": prefix} | options
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return attention(q, k, v, start, end, **extra).reshape(1, LENGTH, -1)

        return jax.vjp(run, q, k, v, prefix)[1](d_out)

    q, k = shape(1, LENGTH, HEADS * HEAD_DIM), shape(1, LENGTH, KV_HEADS * HEAD_DIM)
    bounds = shape(1, LENGTH, dtype=jnp.int32)
    prefix = (shape(128, KV_HEADS, HEAD_DIM),) * 2 if options.get("prefix") else None
    options.pop("prefix", None)
    key = shape(2, dtype=jnp.uint32)
    program = jax.jit(gradients).lower(q, k, k, q, bounds, bounds, key, prefix).compile()
    return {
        "temp_bytes": program.memory_analysis().temp_size_in_bytes,
        "kernels": program.as_text().count('custom_call_target="tpu_custom_call"'),
    }


def main():
    mesh = make_mesh(MeshConfig(), topology_devices("v5e:1x1"))
    programs = {
        "auto": compile_program(mesh),
        "dropout": compile_program(mesh, dropout_rate=0.1),
        "prefix": compile_program(mesh, prefix=True),
        "xla_chunked": compile_program(mesh, backend="xla_chunked"),
    }
    print(json.dumps(programs))


if __name__ == "__main__":
    main()
