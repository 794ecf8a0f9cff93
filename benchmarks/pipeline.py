"""Speed of the data pipeline: from text files to Batches, tokenising included, in tokens a second.

python benchmarks/pipeline.py [--length 512] [--batch_size 32] [--megabytes 16]

Copies of the bundled text, English and Chinese, are written to a temporary directory (not counted).
Then: the files are read, tokenised and stored as training does it at its first start, and each row
of one epoch is built and delivered by the row stream. The last line is a JSON object; its
`tokens_per_second` is tokens of text over the time of both, `store_` and `stream_` those of each.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import sentencepiece

from glm_jax.config import DataConfig, ObjectiveConfig
from glm_jax.data.building import build_store
from glm_jax.data.documents import scan
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import OneSource
from glm_jax.data.store import TokenStore
from glm_jax.data.stream import RowStream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=512, help="T, slots of a row")
    parser.add_argument("--batch_size", type=int, default=32, help="B, rows of a Batch")
    parser.add_argument("--megabytes", type=float, default=16.0, help="size of the text")
    parser.add_argument("--rounds", type=int, default=3, help="the median of as many is said")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_text(Path(folder) / "text.txt", round(args.megabytes * 1e6))
        rounds = [run(args, Path(folder), number) for number in range(args.rounds)]
    tokens = rounds[0]["tokens"]
    seconds = {
        name: float(np.median([one[name] for one in rounds])) for name in ("store", "stream")
    }
    cpu = float(np.median([one["cpu"] for one in rounds]))
    result = {
        "tokens_per_second": round(tokens / sum(seconds.values())),
        "store_tokens_per_second": round(tokens / seconds["store"]),
        "stream_tokens_per_second": round(tokens / seconds["stream"]),
        "tokens_per_cpu_second": round(tokens / cpu),
        "tokens": tokens,
        "bytes": size,
        "shape": [args.batch_size, args.length],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sentencepiece": sentencepiece.__version__,
    }
    print(json.dumps(result))


def write_text(path: Path, size: int) -> int:
    """Writes copies of the bundled documents, at least `size` bytes; returns how many there are."""
    corpus = scan(DataConfig())
    # An empty line within a document would make it two.
    texts = [corpus.read(index).replace("\n\n", "\n") for index in range(len(corpus.locations))]
    copy = ("\n\n".join(texts) + "\n\n").encode()
    with path.open("wb") as file:
        while file.tell() < size:
            # Cut at a document's end, so that a small size is not a whole copy.
            end = copy.find(b"\n\n", size - file.tell())
            file.write(copy if end < 0 else copy[: end + 2])
        return file.tell()


def run(args: argparse.Namespace, folder: Path, number: int) -> dict[str, float]:
    """Builds a store and reads an epoch: seconds of `store`, `stream` and `cpu`, and `tokens`."""
    data = DataConfig(
        source=str(folder / "text.txt"), sequence_length=args.length, batch_size=args.batch_size
    )
    cpu, start = time.process_time(), time.perf_counter()
    build_store(data, folder / f"store{number}", progress=False)
    built = time.perf_counter()
    store = TokenStore.open(folder / f"store{number}")
    tokens = 0
    for documents in store.splits.values():
        builder = RowBuilder(documents, store, data, ObjectiveConfig(), seed=0)
        stream = RowStream(OneSource(builder), args.batch_size, repeat=False)
        for _ in stream:
            pass
        stream.close()
        tokens += documents.num_tokens
    end = time.perf_counter()
    return {
        "store": built - start,
        "stream": end - built,
        "cpu": time.process_time() - cpu,
        "tokens": tokens,
    }


if __name__ == "__main__":
    main()
