"""The server under load: tokens per second and waiting times, beside a plain loop without a server.

python benchmarks/serve.py [--streams 1 8 16 32 64] [--rounds 2] [--slots 16]

A GLM-4 of random parameters (the shape of benchmarks/decode.py, with the bundled vocabulary) is
saved and served by `python -m glm_jax.serve` in a process of its own, as users have it. N streams
are clients of this program: each sends a prompt to /v1/completions, reads its answer as it streams,
and sends the next one. The plain loop is `LanguageModel.generate` on one prompt after another, in a
third process; it has the machine for itself between two rounds. Prompts and lengths are the same.

    tokens_per_second      new tokens of all streams over the time from the first request to the
                           last token
    first_ms               from sending a request to its first token, waiting for a slot included
    between_ms             between two tokens of a stream

Where a pair of numbers stands, it is the median and the 99th percentile. The last line is a JSON
object: `tokens_per_second` is that of 16 streams (or of the most), `times_one_stream` and
`times_plain_loop` how many times as fast that is as one stream of the server and as the plain loop,
`p99_over_median` of the time between tokens. Loops of clients share the cores with the server.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import rivals


def make_prompts(args: argparse.Namespace) -> list[list[int]]:
    """Of half to the whole length, the same for all sides."""
    random = np.random.default_rng(0)
    lengths = random.integers(args.prompt // 2, args.prompt + 1, args.requests * max(args.streams))
    return [random.integers(300, 3000, length).tolist() for length in lengths]


def save_model(args: argparse.Namespace, path: str) -> None:
    """Random parameters with the bundled vocabulary, as a checkpoint."""
    import jax

    import glm_jax
    from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
    from glm_jax.generation.language_model import LanguageModel
    from glm_jax.models.params import create_params
    from glm_jax.sharding.mesh import make_mesh

    tokenizer = glm_jax.load("bundled").tokenizer
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
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
        max_positions=args.context,
    ).resolved(ComputeConfig(scan_layers=False))
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    LanguageModel(config, params, tokenizer).save(path, format="orbax")


def plain_loop(args: argparse.Namespace) -> None:
    """The side without a server: saves the model, and answers prompt after prompt when asked."""
    import glm_jax

    save_model(args, args.checkpoint)
    lm, prompts = glm_jax.load(args.checkpoint), make_prompts(args)[: args.requests]

    def run(line: str) -> None:
        for prompt in prompts:
            lm.generate([prompt], args.new_tokens, eos_ids=[])

    run("")  # compiles
    rivals.answer(run, {})


@contextlib.contextmanager
def served(args: argparse.Namespace, path: str) -> Iterator[int]:
    """The server's port, once all is compiled."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "glm_jax.serve", "--checkpoint", path, "--port", str(port)]
    command += ["--slots", str(args.slots), "--context", str(args.context), "--name", "model"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while state(port) != "ready":
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read().decode())
                time.sleep(0.5)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def state(port: int) -> str | None:
    """What /health says; None: nothing yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return json.load(reply)["status"]
    except OSError:
        return None


async def stream(port: int, prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
    """Sends prompts one after another; for each the time of sending and those of its tokens."""
    found = []
    for prompt in prompts:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = {"model": "model", "prompt": prompt, "max_tokens": new_tokens, "stream": True}
        body |= {
            "temperature": 0,
            "min_tokens": new_tokens,
        }
        text = json.dumps(body)
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        times = [time.perf_counter()]
        writer.write((head + text).encode())
        async for line in reader:
            if line.startswith(b"data: {"):
                if b'"error"' in line:
                    raise RuntimeError(line.decode())
                times.append(time.perf_counter())
        writer.close()
        found.append(times)
    return found


def measure(args: argparse.Namespace, port: int, streams: int) -> dict[str, Any]:
    """One round of so many streams."""
    prompts = make_prompts(args)

    async def run() -> list[list[list[float]]]:
        parts = [prompts[index::streams][: args.requests] for index in range(streams)]
        return await asyncio.gather(*(stream(port, part, args.new_tokens) for part in parts))

    requests = [times for part in asyncio.run(run()) for times in part]
    return summary(requests, args.new_tokens)


def summary(requests: list[list[float]], new_tokens: int) -> dict[str, Any]:
    """Rates and waiting times in ms from the times of sending and of each event.

    A token that ends within a character comes with the next one: tokens are those that were asked
    for, and waiting times those between events.
    """
    seconds = max(times[-1] for times in requests) - min(times[0] for times in requests)
    first = [1000 * (times[1] - times[0]) for times in requests]
    between = [1000 * gap for times in requests for gap in np.diff(times[1:])]
    return {
        "tokens_per_second": len(requests) * new_tokens / seconds,
        "first_ms": [float(np.percentile(first, q)) for q in (50, 99)],
        "between_ms": [float(np.percentile(between, q)) for q in (50, 99)],
    }


def main() -> None:
    args = _parser().parse_args()
    if args.serve:
        plain_loop(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        sys.argv += ["--checkpoint", path]
        loop = rivals.Server("loop", args.threads)
        assert loop.facts == {}  # it has saved the model
        rounds: dict[int, list[dict[str, Any]]] = {streams: [] for streams in args.streams}
        plain = []
        with served(args, path) as port:
            for _ in range(args.rounds):
                seconds, _ = loop.ask("")
                plain.append(args.requests * args.new_tokens / seconds)
                for streams in args.streams:
                    rounds[streams].append(measure(args, port, streams))
                    print(f"{streams} streams: {json.dumps(rounds[streams][-1])}", flush=True)
        loop.close()
    print(json.dumps(report(args, rounds, plain)))


def report(
    args: argparse.Namespace, rounds: dict[int, list[dict[str, Any]]], plain: list[float]
) -> dict[str, Any]:
    """The last line: medians over rounds."""
    by_streams = {
        streams: {
            name: np.median([one[name] for one in found], axis=0).tolist() for name in found[0]
        }
        for streams, found in rounds.items()
    }
    chosen = 16 if 16 in by_streams else max(by_streams)
    rate, one = by_streams[chosen]["tokens_per_second"], by_streams.get(1)
    median, late = by_streams[chosen]["between_ms"]
    return {
        "tokens_per_second": rate,
        "streams": chosen,
        "times_one_stream": rate / one["tokens_per_second"] if one else None,
        "plain_loop_tokens_per_second": statistics.median(plain),
        "times_plain_loop": rate / statistics.median(plain),
        "p99_over_median": late / median,
        "by_streams": by_streams,
        "shape": {name: getattr(args, name) for name in ("layers", "width", "slots", "context")},
        "new_tokens": args.new_tokens,
        "prompt": args.prompt,
        "python": platform.python_version(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=3, help="of each stream in a round")
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the longest prompt")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--context", type=int, default=512)
    for name, value in (("layers", 8), ("width", 512), ("heads", 8), ("kv_heads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--mlp_width", type=int, default=1712)
    parser.add_argument("--threads", type=int, default=2, help="cores of the plain loop")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
