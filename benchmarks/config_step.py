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

    Integers are drawn as such, on the device: `quantise_params` would need the model in 16 bits
    there first, which the chips of such configs do not hold. `kernel/values` are drawn from -7 to
    7, `kernel/scale` is such that a matrix has a deviation of 0.02; a norm's scale is 1.
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
    from glm_jax.planning.program import memory_of, prepare
    from glm_jax.sharding.mesh import batch_sharding
    from glm_jax.training.feed import to_devices
    from glm_jax.training.state import create_state
    from glm_jax.training.step import compile_train_step

    config, mesh = prepare(load_config(args.config, args.set), jax.devices()[:1])
    shape = {
        "batch_size": config.data.batch_size,
        "length": config.data.sequence_length,
        "vocab_size": config.model.vocab_size,
    }
    fields = causal_fields(argparse.Namespace(**shape))
    batch = to_devices(Batch.from_dict(fields), batch_sharding(mesh))
    quantised = config.train.quantize_base is not None
    state = create_state(config, mesh, base_params(config, mesh) if quantised else None)
    flops = flops_per_token(config, state.params, state.frozen)
    began = time.perf_counter()
    compiled = compile_train_step(config, mesh)
    compile_seconds = time.perf_counter() - began
    peak_bytes, _ = memory_of(compiled, on_tpu=jax.default_backend() == "tpu")
    return {
        **accelerator.step_report(compiled, state, batch, flops, steps=1, rounds=args.rounds),
        "program_gib": round(peak_bytes / 2**30, 2),
        "compile_seconds": round(compile_seconds, 1),
        **shape,
        "micro_batches": config.train.accumulation_steps,
        "remat": config.compute.remat,
        "lora_rank": config.lora.rank,
        "quantize_base": config.train.quantize_base,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="a file in configs/")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed")
    args = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    asked = {"config": str(args.config), "set": args.set}
    print(json.dumps({"benchmark": "config_step", **measured(args), **asked}))


if __name__ == "__main__":
    main()
