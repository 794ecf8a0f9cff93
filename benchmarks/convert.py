"""Peak memory and speed of a conversion.

python benchmarks/convert.py [--gigabytes 3] [--stored float16] [--dtype bfloat16 | --quantize int4]

Writes a random ChatGLM2 checkpoint in shards, converts it to native names, and loads and saves it
(then it is on a device, here the same memory), each in a process of its own; prints one JSON line
last. `bound_gib` is the model in its target dtype plus twice its largest tensor; `baseline_gib`
is what a process holds before it reads anything (its libraries).

With --quantize the checkpoint is quantised: by convert, by load, and what convert wrote is loaded
(`packed`). `bound_gib` is then the packed model plus twice the largest tensor as stored.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 2**30
VOCABULARY, WIDTH, LAYERS_OF = 65024, 2048, 2048 * (3 * 6912 + 2048 * 2 + 2 * 256)
ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of the checkpoint")
    parser.add_argument(
        "--stored", choices=ITEM_SIZES, default="float16", help="dtype of its files"
    )
    parser.add_argument("--dtype", choices=ITEM_SIZES, default=None, help="target; None: as stored")
    parser.add_argument("--quantize", choices=["int8", "int4"])
    parser.add_argument(
        "--directory", default=None, help="where the files go; None: a temporary one"
    )
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return _child(*args.child)
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        print(json.dumps(_measure(args, Path(directory))))
    return None


def _measure(args: argparse.Namespace, directory: Path) -> dict[str, object]:
    source, target = directory / "source", directory / "target"
    largest, total = _write(source, args.gigabytes * 1e9, args.stored)
    scale = ITEM_SIZES[args.dtype or args.stored] / ITEM_SIZES[args.stored]
    values: dict[str, float] = {}
    modes = ["convert", "load", *["packed"] * bool(args.quantize)]
    for mode in modes:
        child = [mode, str(source), str(target), args.dtype or "", args.quantize or ""]
        command = [sys.executable, __file__, "--child", *child]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        values |= json.loads(done.stdout.splitlines()[-1])
    size = total * scale
    if args.quantize:
        size, scale = sum(file.stat().st_size for file in target.glob("*.safetensors")), 1.0
    bound = size + 2 * largest * scale
    return {
        "stored": args.stored,
        "dtype": args.quantize or args.dtype or args.stored,
        "model_gib": round(size / GIB, 3),
        "largest_tensor_gib": round(largest * scale / GIB, 3),
        "bound_gib": round(bound / GIB, 3),
        **{key: round(value, 3) for key, value in values.items()},
        **{f"{mode}_within_bound": values[f"{mode}_peak_gib"] <= bound / GIB for mode in modes},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _write(directory: Path, num_bytes: float, dtype: str) -> tuple[int, int]:
    """A checkpoint in files of about 1 GB; returns the bytes of its largest tensor and of all."""
    import ml_dtypes
    import numpy as np

    from glm_jax.config import ModelConfig
    from glm_jax.interop.architectures.chatglm import CHATGLM
    from glm_jax.interop.weights import INDEX, TensorToWrite, write_safetensors

    item = ITEM_SIZES[dtype]
    config = ModelConfig(
        vocab_size=VOCABULARY,
        num_layers=max(1, int((num_bytes / item - 2 * VOCABULARY * WIDTH) / LAYERS_OF)),
        embed_dim=WIDTH,
        num_heads=16,
        num_kv_heads=2,
        mlp_dim=6912,
        activation="swiglu",
        norm="rms_norm",
        biases="qkv",
        tied_embeddings=False,
        position_encoding="rotary",
    )
    directory.mkdir()
    numpy_dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    block = np.random.default_rng(0).normal(0, 0.02, 2**20).astype(numpy_dtype)
    shards: list[list[TensorToWrite]] = [[]]
    for row in CHATGLM.rows(config):
        make = lambda shape=row.shape: np.resize(block, shape)  # noqa: E731
        if sum(tensor.num_bytes for tensor in shards[-1]) > 1e9:
            shards.append([])
        shards[-1].append(TensorToWrite(row.key, row.shape, numpy_dtype, make))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(write_safetensors(directory / file, shard), file)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "config.json").write_text(json.dumps(CHATGLM.write_config(config)))
    sizes = [tensor.num_bytes for shard in shards for tensor in shard]
    return max(sizes), sum(sizes)


def _child(mode: str, source: str, target: str, dtype: str, quantize: str) -> None:
    import jax

    import glm_jax
    from glm_jax.convert import main as convert

    jax.numpy.zeros(1).block_until_ready()
    glm_jax.load  # noqa: B018
    baseline = _peak()
    start = time.perf_counter()
    options = ["--dtype", dtype] if dtype else []
    if quantize and mode == "convert":
        convert([source, target, "--quantize", quantize])
    elif quantize:
        found = [source, quantize] if mode == "load" else [target, None]
        jax.block_until_ready(glm_jax.load(found[0], quantize=found[1]).params)
    elif mode == "convert":
        convert([source, target, "--names", "native", *options])
    else:
        glm_jax.load(source, dtype or None).save(target, names="native")
    seconds = time.perf_counter() - start
    values = {"baseline_gib": baseline, f"{mode}_peak_gib": _peak(), f"{mode}_seconds": seconds}
    print("\n" + json.dumps(values))


def _peak() -> float:
    # Not ru_maxrss, which a process has from its parent.
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / GIB


if __name__ == "__main__":
    main()
