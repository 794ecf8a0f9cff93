"""Peak memory of a chat on this machine, beside what `plan --inference` says of it.

python benchmarks/inference_memory.py [--layers 12] [--width 1536] [--context 1024]

Writes a random ChatGLM2 directory in float32, and for float32, int8 and int4 loads it and continues
a prompt in a process of its own, up to the context. `baseline` is the peak of the same process with
as many layers of width 128: Python, the libraries, compiled programs. Prints one JSON line last, in
GiB; `ratio` is (measured - baseline) / planned.
"""

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

GIB = 2**30
WAYS = ("float32", "int8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--vocab_size", type=int, default=32000)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        directory, way, context = args.child
        print(json.dumps(_chat(directory, way, int(context))))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_measure(args, Path(folder))))


def _measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    from glm_jax.config import MeshConfig
    from glm_jax.planning.inference import inference_report
    from glm_jax.sharding.mesh import make_mesh

    config = _write(folder / "model", args.layers, args.width, args.vocab_size, args.context)
    _write(folder / "small", args.layers, 128, args.vocab_size, args.context)
    found: dict[str, object] = {"parameters": None}
    for way in WAYS:
        report = inference_report(
            config,
            make_mesh(MeshConfig()),
            None,
            # `lm.generate` pads one row to two on a CPU (`glm_jax.generation.slots.stack`).
            batch_size=2,
            context=args.context,
            quantize=None if way == "float32" else way,
        )
        peak, baseline = (_child(folder / name, way, args.context) for name in ("model", "small"))
        found["parameters"] = report["parameters"]
        found[f"{way}_planned_gib"] = round(report["peak_hbm_gib"], 3)
        found[f"{way}_measured_gib"] = round(peak - baseline, 3)
        found[f"{way}_baseline_gib"] = round(baseline, 3)
        found[f"{way}_ratio"] = round((peak - baseline) / report["peak_hbm_gib"], 3)
    return {**found, "context": args.context, "python": platform.python_version()}


def _write(path: Path, layers: int, width: int, vocab_size: int, context: int):
    """Writes a random model; returns its config, resolved."""
    from glm_jax import LanguageModel
    from glm_jax.config import MeshConfig
    from glm_jax.models.params import create_params
    from glm_jax.models.variants import CHATGLM2_6B
    from glm_jax.sharding.mesh import make_mesh

    config = dataclasses.replace(
        CHATGLM2_6B,
        vocab_size=vocab_size,
        num_layers=layers,
        embed_dim=width,
        num_heads=width // 64,
        head_dim=64,
        mlp_dim=3 * width,
        max_positions=context,
    ).resolved()
    params = create_params(config, make_mesh(MeshConfig()), seed=0)
    LanguageModel(config, params).save(path)
    return config


def _child(path: Path, way: str, context: int) -> float:
    command = [sys.executable, __file__, "--child", str(path), way, str(context)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _chat(directory: str, way: str, context: int) -> float:
    """The most memory that was resident, in GiB."""
    import glm_jax

    lm = glm_jax.load(directory, quantize=None if way == "float32" else way)
    lm.generate([[5] * (context - 16)], max_new_tokens=16, eos_ids=[])
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / GIB


if __name__ == "__main__":
    main()
