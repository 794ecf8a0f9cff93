"""Memory that the loss takes on one TPU chip, compiled ahead of time; nothing runs.

python benchmarks/cross_entropy.py [--topology v5e:1x1] [--chunk 1024] [--methods chunked plain]

16,384 tokens of width 4096 in bfloat16 against 65,024 ids: the gradient of hidden values and output
matrix by each way of `train.cross_entropy`, and the GiB of temporaries that the compiler takes
beside arguments and results. The last line is a JSON object.
"""

import argparse
import json
import os
import time
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from glm_jax.training.compiling import compiler_options

from glm_jax.batch import Batch
from glm_jax.config import MeshConfig, TrainConfig
from glm_jax.losses.pretraining import weighted_losses
from glm_jax.models.layers import scores
from glm_jax.planning.topologies import topology_devices
from glm_jax.sharding.mesh import make_mesh, replicated

METHODS = ("plain", "chunked", "gradient_in_forward")


class Head:
    """The part of a model that the loss asks for."""

    def __init__(self, table: jax.Array):
        self.table = table

    def scorer(self) -> Any:
        return lambda hidden: scores(hidden, self.table)


def measure(method: str, args: argparse.Namespace) -> dict[str, float]:
    """GiB of temporaries and at the peak, and seconds of compiling."""
    mesh = make_mesh(MeshConfig(), topology_devices(args.topology)[:1])
    config = TrainConfig(cross_entropy=method, loss_chunk=args.chunk)

    def spec(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated(mesh))

    def loss(hidden: jax.Array, table: jax.Array, targets: jax.Array, scale: jax.Array) -> Any:
        fields = dict.fromkeys(Batch.__dataclass_fields__, targets)
        part = Batch(**fields)
        return weighted_losses(config, mesh, Head(table), hidden, part, scale)[0]

    rows = (args.tokens // args.length, args.length)
    arguments = (
        spec((*rows, args.width), jnp.bfloat16),
        spec((args.vocab_size, args.width), jnp.bfloat16),
        spec(rows, jnp.int32),
        spec(rows, jnp.float32),
    )
    begin = time.monotonic()
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*arguments)
    compiled = lowered.compile(compiler_options=compiler_options(mesh))
    memory = compiled.memory_analysis()
    return {
        "temporary_gib": round(memory.temp_size_in_bytes / 2**30, 3),
        "peak_gib": round(memory.peak_memory_in_bytes / 2**30, 3),
        "compile_seconds": round(time.monotonic() - begin, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:1x1")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--vocab_size", type=int, default=65024)
    args = parser.parse_args()
    results = {}
    for method in args.methods:
        results[method] = measure(method, args)
        print(f"{method}: {results[method]}", flush=True)
    print(json.dumps({"benchmark": "cross_entropy", **vars(args), "results": results}))


if __name__ == "__main__":
    main()
