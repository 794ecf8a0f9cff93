"""A training step of a config on the device that is there: time, memory, share of the peak.

    python benchmarks/config_step.py --config configs/finetune/chatglm2_6b_lora_h100.py
    python benchmarks/config_step.py --config FILE --set lora.rank=0 train.accumulation_steps=4

No checkpoint and no text is read: parameters are random, a base of `train.quantize_base` too, and
so are the tokens of the rows, of which all slots are predicted from those before them. What a step
takes does not depend on either. `python -m glm_jax.plan` with the same options says what it should
take. It runs on the first device; the last line is a JSON object.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import accelerator
from train_step import causal_fields


def base_params(config: Any, mesh: Any) -> Any:
    """Random parameters as `create_state` takes them, quantised where the config says so.

    `kernel/values` are drawn from -7 to 7, `kernel/scale` is such that a matrix has a deviation of
    0.02; a norm's scale is 1.
    """
    import jax
    import jax.numpy as jnp

    from glm_jax.adapters.held import abstract_base
    from glm_jax.adapters.quantised import arrays_by_name
    from glm_jax.models.params import abstract_params

    shapes = abstract_base(config, abstract_params(config.resolved_model, mesh))
    names = list(arrays_by_name(shapes))

    def draw() -> Any:
        arrays = []
        for number, (name, leaf) in enumerate(zip(names, jax.tree.leaves(shapes), strict=True)):
            key = jax.random.key(number)
            if jnp.issubdtype(leaf.dtype, jnp.integer):
                array = jax.random.randint(key, leaf.shape, -7, 8, jnp.int8)
            elif name.endswith("kernel/scale"):
                array = jnp.full(leaf.shape, 0.005)
            elif name.endswith("/scale"):
                array = jnp.ones(leaf.shape)
            else:
                array = 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)
            arrays.append(array.astype(leaf.dtype))
        return jax.tree.unflatten(jax.tree.structure(shapes), arrays)

    return jax.jit(draw, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes))()


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """What the last line says; `seconds` is the median of `--rounds`."""
    import jax

    from glm_jax.batch import Batch
    from glm_jax.config.files import load_config
    from glm_jax.models.flops import flops_per_token
    from glm_jax.planning.program import prepare
    from glm_jax.sharding.mesh import batch_sharding
    from glm_jax.training.feed import to_devices
    from glm_jax.training.state import create_state
    from glm_jax.training.step import compile_train_step

    changes = [change for some in args.set for change in some]
    config, mesh = prepare(load_config(args.config, changes), jax.devices()[:1])
    args.batch_size, args.length = config.data.batch_size, config.data.sequence_length
    args.vocab_size = config.model.vocab_size
    quantised = config.train.quantize_base is not None
    state = create_state(config, mesh, base_params(config, mesh) if quantised else None)
    batch = to_devices(Batch.from_dict(causal_fields(args)), batch_sharding(mesh))
    began = time.perf_counter()
    compiled = compile_train_step(config, mesh)
    compile_seconds = time.perf_counter() - began
    losses = []

    def step() -> None:
        nonlocal state
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
        jax.block_until_ready(state)

    seconds = accelerator.median_seconds(step, rounds=args.rounds)
    facts = accelerator.facts(jax.devices()[0])
    flops = flops_per_token(config, state.params, state.frozen)
    tokens = args.batch_size * args.length
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "seconds": round(seconds, 5),
        "mfu": accelerator.share(flops * tokens / seconds, facts["peak_flops"]),
        "flops_per_token": flops,
        "program_gib": round((held + memory.temp_size_in_bytes) / 2**30, 2),
        "compile_seconds": round(compile_seconds, 1),
        "losses": [round(loss, 4) for loss in losses],
        "kernels": accelerator.kernels(compiled.as_text()),
        "batch_size": args.batch_size,
        "length": args.length,
        "micro_batches": config.train.accumulation_steps,
        "remat": config.compute.remat,
        "lora_rank": config.lora.rank,
        "quantize_base": config.train.quantize_base,
        **facts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="a file in configs/")
    parser.add_argument("--set", nargs="+", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed")
    args = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    shape = {"config": str(args.config), "set": [change for some in args.set for change in some]}
    print(json.dumps({"benchmark": "config_step", **measured(args), **shape}))


if __name__ == "__main__":
    main()
