"""Speed of a training step on CPU, beside the same model in PyTorch where torch is installed.

python benchmarks/train_step.py [--layers 8] [--steps 10] [--threads 2]

One step is forward, backward, clipping and AdamW of a GLM (learned positions in two dimensions,
prefix mask, tied output matrix) in float32 without dropout, on rows whose first half is part A.
Each side runs in a process of its own, and they take turns step by step, so that what else goes on
on the machine slows both. The last line is a JSON object; `tokens_per_second` is the median, and a
token is a place of the batch, predicted or not. Between the steps jax multiplies two large matrices
on the same cores: `peak_gflops` is the fastest of these products, and `share_of_peak` what the
step's own products, `step_gflop`, take of it. `--give_back_memory` leaves out
`train.keep_freed_memory`.

`--lora 8` has a third side take turns: the same step with a frozen model and adapters of that rank
on queries, keys and values. `lora_share` is what it takes of the CPU seconds of the full step.

On an accelerator, `--preset h100` measures a causal model of 1.5 billion parameters in bfloat16
alone, its share of the device's peak too (`accelerator.py`).
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import accelerator
import numpy as np
import rivals

PRODUCT = 2048  # rows and columns of the matrices by which the machine's peak is measured


def make_fields(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Rows with one [gMASK] at the end of part A: bidirectional there, causal and predicted after.

    length 6, prefix 3      positions        0 1 2 2 2 2
                            block_positions  0 0 0 1 2 3
                            attend_end       3 3 3 4 5 6
                            loss_weights     0 0 0 1 1 1
    """
    random = np.random.default_rng(0)
    shape, prefix = (args.batch_size, args.length), args.prefix or args.length // 2
    place = np.broadcast_to(np.arange(args.length), shape)
    after = place >= prefix
    return {
        "tokens": random.integers(0, args.vocab_size, shape).astype(np.int32),
        "targets": random.integers(0, args.vocab_size, shape).astype(np.int32),
        "loss_weights": after.astype(np.float32),
        "positions": np.minimum(place, prefix - 1).astype(np.int32),
        "block_positions": np.maximum(place - prefix + 1, 0).astype(np.int32),
        "attend_start": np.zeros(shape, np.int32),
        "attend_end": np.maximum(prefix, place + 1).astype(np.int32),
        "objective": after.astype(np.int32) * 3,
    }


def lora_step(args: argparse.Namespace) -> tuple[Callable[[], float], str]:
    """`jax_step`, with adapters alone trained."""
    return jax_step(args, args.lora)


def jax_step(args: argparse.Namespace, rank: int = 0) -> tuple[Callable[[], float], str]:
    """The step of `glm_jax.train`, and the version."""
    import jax

    from glm_jax.batch import Batch
    from glm_jax.config import (
        ComputeConfig,
        Config,
        DataConfig,
        LoraConfig,
        ModelConfig,
        TrainConfig,
    )
    from glm_jax.sharding.mesh import batch_sharding, make_mesh
    from glm_jax.training.feed import to_devices
    from glm_jax.training.run.freed_memory import keep_freed_memory
    from glm_jax.training.state import create_state
    from glm_jax.training.step import make_train_step

    if not args.give_back_memory:
        keep_freed_memory(lambda: True)
    model = ModelConfig(
        vocab_size=args.vocab_size,
        num_layers=args.layers,
        embed_dim=args.width,
        num_heads=args.heads,
        max_positions=args.length,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
    )
    data = DataConfig(sequence_length=args.length, batch_size=args.batch_size)
    compute = ComputeConfig(scan_layers=args.scan)
    config = Config(
        model=model,
        data=data,
        train=TrainConfig(num_steps=1000),
        compute=compute,
        lora=LoraConfig(rank=rank, dropout=0.0),
    )
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    batch = to_devices(Batch.from_dict(make_fields(args)), batch_sharding(mesh))
    state = create_state(config, mesh)
    compiled = make_train_step(config, mesh).lower(state, batch).compile()

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return step, jax.__version__


def torch_step(args: argparse.Namespace) -> tuple[Callable[[], float], str]:
    """The same model and step in eager PyTorch, with its fused attention and AdamW."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    width, heads = args.width, args.heads

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any, mask: Any) -> Any:
            rows, length, _ = x.shape
            qkv = self.qkv(self.norm1(x)).view(rows, length, 3, heads, width // heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + self.out(y.transpose(1, 2).reshape(rows, length, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(args.vocab_size, width)
            self.places = nn.Embedding(args.length + 1, width)
            self.blocks = nn.Embedding(args.length + 1, width)
            self.layers = nn.ModuleList(Layer() for _ in range(args.layers))
            self.norm = nn.LayerNorm(width)
            for parameter in self.parameters():
                if parameter.ndim == 2:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, batch: dict[str, Any], mask: Any) -> Any:
            x = self.words(batch["tokens"]) + self.places(batch["positions"])
            x = x + self.blocks(batch["block_positions"])
            for layer in self.layers:
                x = layer(x, mask)
            return F.linear(self.norm(x), self.words.weight)

    batch = {name: torch.from_numpy(value) for name, value in make_fields(args).items()}
    keys = torch.arange(args.length)
    mask = (keys < batch["attend_end"][..., None])[:, None]
    targets, weights = batch["targets"].flatten().long(), batch["loss_weights"].flatten()
    model = Model()
    decay = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=4e-6, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def step() -> float:
        logits = model(batch, mask).view(-1, args.vocab_size)
        losses = F.cross_entropy(logits, targets, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step, torch.__version__


def causal_fields(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Full rows of a causal model, every place predicted."""
    shape = (args.batch_size, args.length)
    place = np.broadcast_to(np.arange(args.length, dtype=np.int32), shape)
    nothing = np.zeros(shape, np.int32)
    words = np.random.default_rng(0).integers(0, args.vocab_size, (2, *shape)).astype(np.int32)
    return {
        "tokens": words[0],
        "targets": words[1],
        "loss_weights": np.ones(shape, np.float32),
        "positions": place,
        "block_positions": nothing,
        "attend_start": nothing,
        "attend_end": place + 1,
        "objective": nothing + 4,
    }


def accelerator_result(args: argparse.Namespace) -> dict[str, Any]:
    """A preset's steps on the first device; `seconds` is of a step among `--steps` in a row."""
    import jax

    from glm_jax.batch import Batch
    from glm_jax.config import Config, DataConfig, TrainConfig
    from glm_jax.models.flops import attention_flops_per_token, matrix_parameters
    from glm_jax.models.params import abstract_params, count_params
    from glm_jax.sharding.mesh import batch_sharding, make_mesh
    from glm_jax.training.feed import to_devices
    from glm_jax.training.state import create_state
    from glm_jax.training.step import make_train_step

    model = accelerator.model_config(args, args.length)
    data = DataConfig(sequence_length=args.length, batch_size=args.batch_size)
    compute = accelerator.compute_config(args, remat=args.remat)
    config = Config(model=model, data=data, train=TrainConfig(num_steps=1000), compute=compute)
    model = config.resolved_model
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    fields = causal_fields(args)
    batch = to_devices(Batch.from_dict(fields), batch_sharding(mesh))
    state = create_state(config, mesh)
    began = time.perf_counter()
    compiled = make_train_step(config, mesh).lower(state, batch).compile()
    compile_seconds = time.perf_counter() - began
    density = float(np.mean(fields["attend_end"] - fields["attend_start"])) / args.length
    flops = 6 * matrix_parameters(abstract_params(model, mesh))
    flops += attention_flops_per_token(model, args.length, density)
    return {
        **accelerator.step_report(compiled, state, batch, flops, args.steps, rounds=5),
        "parameters": count_params(model),
        "compile_seconds": round(compile_seconds, 1),
        **{name: getattr(args, name) for name in ("dtype", "remat", "attention_backend")},
    }


SIDES = {"jax": jax_step, "torch": torch_step, "lora": lora_step}


def step_flop(args: argparse.Namespace) -> float:
    """FLOPs of a step's products: all pairs of a row in attention, logits where there are targets.

    8 layers x 512, 4 rows of 512, half of them targets -> 6 * (25.2 M * 2048 + 4.2 M * 1024) + 52 G
    """
    width, places = args.width, args.batch_size * args.length
    targets = int(make_fields(args)["loss_weights"].sum())
    matrices = args.layers * 12 * width**2
    attention = 12 * args.layers * width * args.length * places
    return 6 * (matrices * places + args.vocab_size * width * targets) + attention


def jax_product() -> Callable[[], Any]:
    """A product that is as fast as any, 17 GFLOP."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((PRODUCT, PRODUCT), jnp.float32)
    compiled = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    return lambda: jax.block_until_ready(compiled(matrix, matrix))


def serve(args: argparse.Namespace) -> None:
    """Runs one step, or one product, for every line on standard input."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    step, version = SIDES[args.serve](args)
    runs: dict[str, Callable[[], Any]] = {"step": step}
    if args.serve == "jax":
        runs["product"] = jax_product()
        runs["product"]()
    rivals.answer(lambda line: runs[line](), {"first_losses": [step(), step()], "version": version})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("layers", 8),
        ("width", 512),
        ("heads", 8),
        ("vocab_size", 8192),
        ("length", 512),
        ("batch_size", 4),
        ("threads", 2),
        ("steps", 10),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prefix", type=int, default=0, help="places of part A; 0: half")
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters, another side")
    parser.add_argument("--scan", action="store_true", help="scanned layers in JAX")
    parser.add_argument("--no_torch", action="store_true")
    parser.add_argument("--give_back_memory", action="store_true", help="freed memory, in JAX")
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    for name in ("kv_heads", "mlp_width"):
        parser.add_argument(f"--{name}", type=int, help="of a preset")
    parser.add_argument("--remat", default="none", help="of a preset: what is computed again")
    args = accelerator.parse(parser, "train_step")
    if args.serve:
        return serve(args)
    names = ("layers", "width", "heads", "vocab_size", "length", "batch_size")
    if args.preset:
        names = (*names, "kv_heads", "mlp_width", "steps", "preset")
        shape = {name: getattr(args, name) for name in names}
        return print(json.dumps({"benchmark": "train_step", **accelerator_result(args), **shape}))

    with_torch = not args.no_torch and importlib.util.find_spec("torch") is not None
    sides = ["jax", *["torch"] * with_torch, *["lora"] * bool(args.lora)]
    servers = {side: rivals.Server(side, args.threads) for side in sides}
    # All are warm before the first step is measured.
    versions = {side: server.facts["version"] for side, server in servers.items()}
    took: dict[str, list[list[float]]] = {side: [] for side in servers}
    products: list[float] = []
    for number in range(args.steps):
        for side, server in servers.items():
            took[side].append(server.ask("step"))
        products += [servers["jax"].ask("product")[0] for _ in range(3)]
        print(f"step {number + 1}: { ({s: round(t[-1][0], 3) for s, t in took.items()}) } s")
    for server in servers.values():
        server.close()

    tokens = args.batch_size * args.length
    result: dict[str, Any] = {"benchmark": "train_step"}
    for side, times in took.items():
        prefix = "" if side == "jax" else f"{side}_"
        wall, cpu = (statistics.median(time) for time in zip(*times, strict=True))
        result[f"{prefix}tokens_per_second"] = round(tokens / wall, 1)
        result[f"{prefix}seconds"] = round(wall, 4)
        result[f"{prefix}cpu_seconds"] = round(cpu, 4)
        result[f"{side}_version"] = versions[side]
    peak, flop = 2 * PRODUCT**3 / min(products), step_flop(args)
    result |= {"step_gflop": round(flop / 1e9, 1), "peak_gflops": round(peak / 1e9, 1)}
    for side in took:
        prefix = "" if side == "jax" else f"{side}_"
        if side != "lora":
            share = flop / result[f"{prefix}seconds"] / peak
            result[f"{prefix}share_of_peak"] = round(share, 4)
    if args.lora:
        ratios = [lora[1] / full[1] for full, lora in zip(took["jax"], took["lora"], strict=True)]
        result["lora_share"] = round(statistics.median(ratios), 3)
    if with_torch:
        ratios = [t[0] / j[0] for j, t in zip(took["jax"], took["torch"], strict=True)]
        result["times_torch"] = round(statistics.median(ratios), 3)
    result |= {name: getattr(args, name) for name in (*names, "threads", "steps")}
    result["python"] = platform.python_version()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
