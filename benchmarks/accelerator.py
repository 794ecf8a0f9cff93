"""What the benchmarks share where there is a GPU or TPU: shapes, published peaks, the report.

python benchmarks/train_step.py --preset h100
python benchmarks/decode.py --preset h100

A preset is a set of defaults; what else stands on the command line goes before it. It runs in one
process on the first device that jax finds, beside nothing. The last line is a JSON object, with
`mfu`, the model's FLOPs (`glm_jax.models.flops`; what is computed again does not count) over the
device's peak, or `bandwidth_share_batch_N`, the bytes that a step of decoding must read over what
the memory can give; both are null on a device that `planning.chips` does not know.
"""

import argparse
import datetime
import os
import platform
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

# ChatGLM2 at half its width, 1.5 billion parameters.
_CHATGLM2_1B5 = {
    "layers": 24,
    "width": 2048,
    "heads": 16,
    "kv_heads": 2,
    "mlp_width": 6848,
    "vocab_size": 65024,
    "dtype": "bfloat16",
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Compiled ahead of time for an H100 (jax 0.11.2), a step needs 58 GiB; with remat "none" 8 rows
    # need 78.
    "train_step": {
        "h100": {
            **_CHATGLM2_1B5,
            **{"length": 2048, "batch_size": 16, "remat": "dots", "steps": 10},
        }
    },
    # Prompt and answer, and prompt and half the answer, need caches of one size.
    "decode": {"h100": {**_CHATGLM2_1B5, "prompt": 1024, "new_tokens": 512}},
}


def parse(parser: argparse.ArgumentParser, benchmark: str) -> argparse.Namespace:
    """Adds what only presets use, and parses; a preset's values are defaults."""
    presets = PRESETS[benchmark]
    parser.add_argument("--preset", choices=sorted(presets), help="for accelerators; no rival")
    parser.add_argument("--dtype", default="float32", help="of a preset: what it computes in")
    parser.add_argument("--attention_backend", default="auto", help="of a preset")
    chosen = parser.parse_known_args()[0].preset
    if chosen:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
        parser.set_defaults(**presets[chosen])
    return parser.parse_args()


def model_config(args: argparse.Namespace, max_positions: int, **fields: Any) -> Any:
    """The causal model of a preset: grouped heads, SwiGLU, half of each head rotated."""
    from glm_jax.config import ModelConfig

    return ModelConfig(
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
        max_positions=max_positions,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        **fields,
    )


def compute_config(args: argparse.Namespace, **fields: Any) -> Any:
    """How the model of a preset runs."""
    from glm_jax.config import ComputeConfig

    return ComputeConfig(dtype=args.dtype, attention_backend=args.attention_backend, **fields)


def peaks(device: Any) -> tuple[float | None, float | None]:
    """Operations and bytes a second of a device, None where they are not known."""
    from glm_jax.planning.chips import chip_of

    chip = chip_of(device)
    return (None, None) if chip is None else (chip.peak_flops, chip.hbm_bandwidth)


def share(used_per_second: float, peak: float | None) -> float | None:
    """Of the peak, or None."""
    return None if peak is None else round(used_per_second / peak, 4)


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
    """The median of so many calls, after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def kernels(compiled_text: str) -> dict[str, int]:
    """What a program calls that XLA did not write, by name: says which attention was compiled.

    `.. custom_call_target="__gpu$xla.gpu.triton" ..` -> {"__gpu$xla.gpu.triton": 1}
    """
    return dict(Counter(re.findall(r'custom_call_target="([^"]+)"', compiled_text)))


def step_report(
    compiled: Any, state: Any, batch: Any, flops_per_token: float, steps: int, rounds: int
) -> dict[str, Any]:
    """Time, share of the peak and losses of a compiled training step, which takes the state.

    Args:
      compiled: `(state, batch) -> (state, metrics)`.
      state: it begins with.
      batch: of every step, [B, T].
      flops_per_token: of the model.
      steps: in a row, of which `seconds` is one; each row has a loss, that of its last.
      rounds: rows that are timed; `seconds` is their median.
    """
    import jax

    losses = []

    def run() -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
        jax.block_until_ready(state)

    seconds = median_seconds(run, rounds) / steps
    tokens, where = batch.tokens.size, facts(jax.devices()[0])
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "seconds": round(seconds, 5),
        "mfu": share(flops_per_token * tokens / seconds, where["peak_flops"]),
        "flops_per_token": flops_per_token,
        "losses": [round(loss, 4) for loss in losses],
        "kernels": kernels(compiled.as_text()),
        **where,
    }


def facts(device: Any) -> dict[str, Any]:
    """Where and when something was measured, with what."""
    import jax
    import jaxlib

    peak_flops, bandwidth = peaks(device)
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "device_kind": device.device_kind,
        "peak_flops": peak_flops,
        "peak_bandwidth": bandwidth,
        "peak_memory_gib": memory and round(memory / 2**30, 2),
        "jax_version": jax.__version__,
        "jaxlib_version": jaxlib.__version__,
        "platform_version": getattr(device.client, "platform_version", None),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }
