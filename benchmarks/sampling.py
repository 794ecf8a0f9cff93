"""Time that top-k and top-p take in a step, beside what they took with the logits sorted.

python benchmarks/sampling.py [--rows 16] [--vocab_sizes 7168 150000] [--rounds 11]

Both ways take turns in one process, on the same normal logits of standard deviation 3, for three
pairs of limits. The last line is a JSON object: medians in ms by size and limits, how many times as
long sorting takes, and how many ids only one of both keeps (sums of float32 in another order).
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generation.narrowing import filter_logits

LIMITS = {"top_k_50": (50, 1.0), "top_p_0.9": (0, 0.9), "both": (50, 0.9)}


def by_sorting(logits: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    """`filter_logits` as it was: the limits are found in the order of a row's logits."""
    ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    number = jnp.where(top_k > 0, top_k, logits.shape[-1])[:, None]
    ranked = jnp.where(jnp.arange(logits.shape[-1]) < number, ranked, -jnp.inf)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before < top_p[:, None]) | (top_p[:, None] >= 1)
    lowest = jnp.min(jnp.where(kept & (ranked > -jnp.inf), ranked, jnp.inf), -1, keepdims=True)
    return jnp.where(logits >= lowest, logits, -jnp.inf)


def measure(rows: int, size: int, limits: tuple[int, float], rounds: int) -> dict[str, float]:
    """Medians in ms of both ways in turns, after a round that compiles."""
    normal = np.random.default_rng(0).normal(size=(rows, size))
    arguments = (
        jnp.asarray(3 * normal, jnp.float32),
        jnp.full(rows, limits[0], jnp.int32),
        jnp.full(rows, limits[1], jnp.float32),
    )
    ways = {"sorted_ms": jax.jit(by_sorting), "ms": jax.jit(filter_logits)}
    kept = [np.isfinite(way(*arguments)) for way in ways.values()]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way(*arguments).block_until_ready()
            times[name].append(1000 * (time.perf_counter() - began))
    found = {name: round(statistics.median(each), 2) for name, each in times.items()}
    found["times"] = round(found["sorted_ms"] / found["ms"], 1)
    return {**found, "kept": int(kept[1].sum()), "differ": int((kept[0] != kept[1]).sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--vocab_sizes", type=int, nargs="+", default=[7168, 150_000])
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    results: dict[int, dict[str, dict[str, float]]] = {}
    for size in args.vocab_sizes:
        results[size] = {}
        for name, limits in LIMITS.items():
            results[size][name] = measure(args.rows, size, limits, args.rounds)
            print(f"{args.rows} x {size:,} {name}: {results[size][name]}", flush=True)
    device = jax.devices()[0].device_kind
    print(json.dumps({**vars(args), "device": device, "jax": jax.__version__, "results": results}))


if __name__ == "__main__":
    main()
