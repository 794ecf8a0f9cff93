"""Speed of greedy generation on CPU, beside transformers where it and torch are installed.

python benchmarks/decode.py [--layers 8] [--rounds 5] [--threads 2] [--quantize int8 int4]

A GLM-4 (grouped heads, SwiGLU, rotary positions) of random parameters in float32 continues prompts
by a fixed number of tokens, for 1 row and for 8; transformers does it with `GlmForCausalLM`'s
`generate`. Each side runs in a process of its own, and they take turns, so that what else goes on
on the machine slows both. The last line is a JSON object; `tokens_per_second_batch_N` counts new
tokens of all rows over the whole call, prompt included, and is the median.

`--quantize int8` or `int4`, or both, adds the same model with quantised matrices, in turns with the
others: `int8_tokens_per_second_batch_N`, and how many times the speed of float32 that is, the
median over rounds (`int8_times_float32_batch_N`, and `.._cpu_..` of processor time, which says more
where other programs run). `benchmarks/rivals.py` has how the sides take turns.

torch's threads wait for each other in a loop: where other programs hold one of the cores, its times
and CPU seconds both grow many times over. There, compare with `--threads 1`.

On an accelerator, `--preset h100` measures a model of 1.5 billion parameters in bfloat16 alone, its
share of the memory's bandwidth too (`accelerator.py`).
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import statistics
from collections.abc import Callable
from typing import Any

import accelerator
import numpy as np
import rivals

BATCH_SIZES = (1, 8)


def make_prompts(args: argparse.Namespace, batch_size: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, args.vocab_size, (batch_size, args.prompt))


def jax_side(
    args: argparse.Namespace, bits: int | None = None
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Generation for a batch size, and the versions.

    Args:
      args: of the command.
      bits: of quantised matrices; None: float32.
    """
    import jax

    from glm_jax.adapters.quantising import Quantize
    from glm_jax.checkpoints.quantising import quantise_params
    from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
    from glm_jax.generation.language_model import LanguageModel
    from glm_jax.models.params import count_params, create_params
    from glm_jax.sharding.mesh import make_mesh

    config = ModelConfig(
        vocab_size=args.vocab_size,
        num_layers=args.layers,
        embed_dim=args.width,
        num_heads=args.heads,
        num_kv_heads=args.kv_heads,
        mlp_dim=args.mlp_width,
        activation="swiglu",
        norm="rms_norm",
        biases="qkv",
        tied_embeddings=False,
        position_encoding="rotary",
        max_positions=args.prompt + args.new_tokens,
    ).resolved(ComputeConfig(scan_layers=False))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = create_params(config, mesh, seed=0)
    lm = LanguageModel(
        config, quantise_params(params, mesh, Quantize(bits)) if bits is not None else params
    )

    def generate(batch_size: int) -> None:
        prompts = make_prompts(args, batch_size).tolist()
        answers = lm.generate(prompts, max_new_tokens=args.new_tokens, eos_ids=[])
        assert {len(answer) for answer in answers} == {args.new_tokens}

    if bits is not None:
        return generate, {}
    # All but the word table is read in every step.
    read = 4 * (count_params(config) - args.vocab_size * args.width)
    return generate, {"jax_version": jax.__version__, "weight_bytes_per_step": read}


def transformers_side(args: argparse.Namespace) -> tuple[Callable[[int], None], dict[str, Any]]:
    """The same with transformers."""
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    config = transformers.GlmConfig(
        vocab_size=args.vocab_size,
        hidden_size=args.width,
        intermediate_size=args.mlp_width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.width // args.heads,
        max_position_embeddings=args.prompt + args.new_tokens,
        attention_bias=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.GlmForCausalLM(config).eval().float()

    def generate(batch_size: int) -> None:
        ids = torch.from_numpy(make_prompts(args, batch_size))
        with torch.inference_mode():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=args.new_tokens,
                do_sample=False,
            )
        assert output.shape == (batch_size, args.prompt + args.new_tokens)

    versions = {"torch_version": torch.__version__}
    return generate, versions | {"transformers_version": transformers.__version__}


def step_bytes(config: Any, batch_size: int, filled: float) -> int:
    """What a step of decoding must read: all parameters but the word table, and the cache.

    Args:
      config: numbers take those of compute.dtype.
      filled: places of a row's cache that a step sees, on the average.
    """
    from glm_jax.models.params import count_params

    weights = count_params(config) - config.vocab_size * config.embed_dim
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * batch_size * filled
    return round({"bfloat16": 2, "float32": 4}[config.compute.dtype] * (weights + cache))


def accelerator_result(args: argparse.Namespace) -> dict[str, Any]:
    """A preset's answers on the first device.

    The time of a step is what the second half of an answer takes, so the prompt is not in it.
    """
    import jax

    from glm_jax.config import MeshConfig
    from glm_jax.generation.language_model import LanguageModel
    from glm_jax.models.params import count_params, create_params
    from glm_jax.sharding.mesh import make_mesh

    length = args.prompt + args.new_tokens
    config = accelerator.model_config(args, length, param_dtype=args.dtype)
    config = config.resolved(accelerator.compute_config(args, scan_layers=False))
    lm = LanguageModel(config, create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), 0))
    _, bandwidth = accelerator.peaks(jax.devices()[0])
    result: dict[str, Any] = {"parameters": count_params(config)}
    for batch_size in BATCH_SIZES:
        prompts = make_prompts(args, batch_size).tolist()
        half = args.new_tokens // 2

        def seconds(count: int, prompts: list = prompts) -> float:
            def run() -> None:
                answers = lm.generate(prompts, max_new_tokens=count, eos_ids=[])
                assert {len(answer) for answer in answers} == {count}

            return accelerator.median_seconds(run, args.rounds)

        whole = seconds(args.new_tokens)
        step = (whole - seconds(half)) / (args.new_tokens - half)
        read = step_bytes(config, batch_size, length - (args.new_tokens - half) / 2)
        result |= {
            f"tokens_per_second_batch_{batch_size}": round(batch_size * args.new_tokens / whole, 1),
            f"step_seconds_batch_{batch_size}": round(step, 6),
            f"step_bytes_batch_{batch_size}": read,
            f"bandwidth_share_batch_{batch_size}": accelerator.share(read / step, bandwidth),
        }
    facts = accelerator.facts(jax.devices()[0])
    return result | {"dtype": args.dtype, "attention_backend": args.attention_backend, **facts}


QUANTISED = {"int8": 8, "int4": 4}
SIDES = {
    "jax": jax_side,
    "transformers": transformers_side,
    **{name: functools.partial(jax_side, bits=bits) for name, bits in QUANTISED.items()},
}


def serve(args: argparse.Namespace) -> None:
    """Generates once for every batch size that a line of standard input names."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    generate, facts = SIDES[args.serve](args)
    for batch_size in BATCH_SIZES:
        generate(batch_size)
    rivals.answer(lambda line: generate(int(line)), facts)


def main() -> None:
    args = accelerator.parse(_parser(), "decode")
    if args.serve:
        return serve(args)
    names = ("layers", "width", "heads", "kv_heads", "mlp_width", "vocab_size")
    names += ("prompt", "new_tokens")
    if args.preset:
        shape = {name: getattr(args, name) for name in (*names, "rounds", "preset")}
        return print(json.dumps({"benchmark": "decode", **accelerator_result(args), **shape}))

    found = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    sides = ["jax", "transformers"] if found and not args.no_transformers else ["jax"]
    sides += args.quantize
    servers = {side: rivals.Server(side, args.threads) for side in sides}
    result: dict[str, Any] = {"benchmark": "decode"}
    for server in servers.values():
        result |= server.facts
    for batch_size in BATCH_SIZES:
        result |= compare(servers, batch_size, args)
    for server in servers.values():
        server.close()
    result |= {name: getattr(args, name) for name in (*names, "threads", "rounds")}
    result["python"] = platform.python_version()
    print(json.dumps(result))


def compare(
    servers: dict[str, rivals.Server], batch_size: int, args: argparse.Namespace
) -> dict[str, float]:
    """All rounds of one batch size: speeds, and how many times that of transformers."""
    took: dict[str, list[list[float]]] = {side: [] for side in servers}
    for number in range(args.rounds):
        for side, server in servers.items():
            took[side].append(server.ask(str(batch_size)))
        shown = {side: round(times[-1][0], 3) for side, times in took.items()}
        print(f"batch {batch_size}, round {number + 1}: {shown} s", flush=True)
    result, tokens = {}, batch_size * args.new_tokens
    for side, times in took.items():
        prefix = "" if side == "jax" else f"{side}_"
        wall, cpu = (statistics.median(time) for time in zip(*times, strict=True))
        result[f"{prefix}tokens_per_second_batch_{batch_size}"] = round(tokens / wall, 1)
        result[f"{prefix}cpu_seconds_per_token_batch_{batch_size}"] = round(cpu / tokens, 6)
    if "transformers" in took:
        result |= ratios("times_transformers", took["jax"], took["transformers"], batch_size)
    for side in args.quantize:
        result |= ratios(f"{side}_times_float32", took[side], took["jax"], batch_size)
    return result


def ratios(
    name: str, ours: list[list[float]], theirs: list[list[float]], batch_size: int
) -> dict[str, float]:
    """How many times as fast ours is, by the clock and by processor time: medians over rounds."""
    result = {}
    for index, suffix in enumerate(("", "_cpu")):
        pairs = zip(ours, theirs, strict=True)
        ratio = statistics.median(other[index] / one[index] for one, other in pairs)
        result[f"{name}{suffix}_batch_{batch_size}"] = round(ratio, 3)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("layers", 8),
        ("width", 512),
        ("heads", 8),
        ("kv_heads", 2),
        ("mlp_width", 1712),
        ("vocab_size", 8192),
        ("prompt", 64),
        ("new_tokens", 64),
        ("threads", 2),
        ("rounds", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--no_transformers", action="store_true")
    parser.add_argument("--quantize", nargs="+", choices=sorted(QUANTISED), default=[])
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
