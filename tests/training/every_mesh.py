"""Run by test_accumulation.py in a process of its own: a step on eight devices is that on one.

    python every_mesh.py 2,2,2,1 -- 2        the meshes named, 2 micro-batches
    python every_mesh.py -- 1 2 4            every way to split eight devices over the four axes

Each case is compiled and run with both reductions, with and without dropout. The other choices
that change a step's program (the loss's form, scanned layers, the variant) take turns, so that
every mesh meets each of them. Prints `MESH: steps alike, steps refused`.
"""

import os
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import functools
import itertools
import math

import jax
import numpy as np

from glm_jax.batch import Batch
from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import REDUCTIONS
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import abstract_state, create_state
from glm_jax.training.step import make_train_step

ROWS, LENGTH, VOCAB = 32, 16, 64
LOSSES = ("gradient_in_forward", "chunked", "plain")
# Eight heads are split by every axis; four are not by tensor=8, which is refused. Two key heads are
# whole on each device where tensor=4 cannot split them.
GLM = {"num_heads": 8}
CAUSAL = {
    "num_heads": 4,
    "num_kv_heads": 2,
    "activation": "swiglu",
    "norm": "rms_norm",
    "biases": "qkv",
    "tied_embeddings": False,
    "position_encoding": "rotary",
}
# A step whose new parameters are the old ones less the gradient, or nearly: with so large an
# epsilon Adam divides by about 1, and does not blow up what differs in the last digit.
PLAIN = OptimizerConfig(
    peak_learning_rate=1.0,
    warmup_steps=1,
    schedule="constant",
    epsilon=1.0,
    weight_decay=0.0,
    clip_norm=None,
)


def config_of(sizes, count, reduction, dropout):
    a, r, d = (1, 2, 4).index(count), REDUCTIONS.index(reduction), int(dropout > 0)
    variant, scanned = (CAUSAL if (a + r + d) % 2 else GLM), bool((a + d) % 2)
    return Config(
        model=ModelConfig(
            vocab_size=VOCAB,
            num_layers=1 + scanned,
            embed_dim=32,
            max_positions=LENGTH,
            initializer_range=0.2,
            dropout_rate=dropout,
            attention_dropout_rate=dropout,
            **variant,
        ),
        data=DataConfig(sequence_length=LENGTH, batch_size=ROWS),
        optimizer=PLAIN,
        train=TrainConfig(
            accumulation_steps=count,
            loss_reduction=reduction,
            cross_entropy=LOSSES[(a + r + 2 * d) % 3],
            loss_chunk=32,
        ),
        mesh=MeshConfig(*sizes),
        compute=ComputeConfig(scan_layers=scanned),
    )


def rows():
    """Rows of two texts, prefixes of different lengths, targets of three objectives, padding."""
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, VOCAB, (2, ROWS, LENGTH)).astype(np.int32)
    slots = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape)
    second = slots >= 9
    start = np.where(second, 9, 0).astype(np.int32)
    prefix = start + rng.integers(1, 5, (ROWS, 1)).astype(np.int32)
    end = np.maximum(prefix, slots + 1).astype(np.int32)
    inside = slots < rng.integers(11, LENGTH + 1, (ROWS, 1))
    predicted = inside & (slots >= prefix)
    return Batch(
        tokens=tokens,
        targets=targets,
        loss_weights=(predicted * rng.integers(0, 3, tokens.shape)).astype(np.float32),
        positions=np.minimum(slots - start, prefix - start).astype(np.int32),
        block_positions=np.maximum(slots - prefix + 1, 0).astype(np.int32),
        attend_start=np.where(inside, start, 0).astype(np.int32),
        attend_end=np.where(inside, end, 0).astype(np.int32),
        objective=(predicted * rng.integers(1, 4, (ROWS, 1))).astype(np.int32),
    )


def step_on(devices, sizes, *case):
    """Metrics and new parameters of one step, on the host."""
    config = config_of(sizes, *case)
    mesh = make_mesh(config.mesh, devices)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    state = jax.device_put(first_state(config.model, config.compute), shardings)
    batch = jax.device_put(rows(), batch_sharding(mesh))
    state, metrics = make_train_step(config, mesh)(state, batch)
    return jax.device_get((metrics, state.params))


@functools.cache
def first_state(model, compute):
    config = Config(model=model, optimizer=PLAIN, compute=compute)
    return jax.device_get(create_state(config, make_mesh(MeshConfig(), jax.devices()[:1])))


@functools.cache
def expected(*case):
    return step_on(jax.devices()[:1], (1, 1, 1, 1), *case)


def compare(sizes, *case):
    """Whether the mesh computes it; AssertionError where it computes something else."""
    try:
        metrics, params = step_on(jax.devices(), sizes, *case)
    except UserError as error:
        if "cannot be split over mesh.tensor=8" not in str(error):
            raise
        return False
    name = f"mesh {sizes}, micro-batches, reduction, dropout {case}"
    for key, value in expected(*case)[0].items():
        np.testing.assert_allclose(metrics[key], value, rtol=2e-5, err_msg=f"{key}: {name}")
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5, err_msg=name)
    jax.tree.map(close, params, expected(*case)[1])
    return True


def main():
    cut = sys.argv.index("--")
    meshes = [tuple(map(int, name.split(","))) for name in sys.argv[1:cut]]
    every = [s for s in itertools.product((1, 2, 4, 8), repeat=4) if math.prod(s) == 8]
    counts = [int(number) for number in sys.argv[cut + 1 :]]
    for sizes in meshes or every:
        cases = itertools.product(counts, REDUCTIONS, (0.0, 0.1))
        alike = [compare(sizes, *case) for case in cases]
        print(f"{','.join(map(str, sizes))}: {sum(alike)} {len(alike) - sum(alike)}", flush=True)


if __name__ == "__main__":
    main()
