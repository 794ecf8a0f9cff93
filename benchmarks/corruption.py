"""Speed of building rows, draws included: source tokens per second of CPU time on one core.

python benchmarks/corruption.py [--length 512] [--objective span]

The last line is a JSON object with `tokens_per_second`. The originals' collate step makes 1.1
million source tokens per CPU-second (span, sentence), 2.1 million (document).
"""

import os

# One core: numpy's threads, should it have any, are set before it is imported.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import json
import platform
import time

import numpy as np

from glm_jax.config import DataConfig, ObjectiveConfig
from glm_jax.data.rows import RowBuilder
from glm_jax.data.store import Documents, TokenStore
from glm_jax.special_tokens import SpecialTokens

OBJECTIVES = {
    "span": ObjectiveConfig(),
    "sentence": ObjectiveConfig(span_rate=0.0, sentence_rate=1.0),
    "document": ObjectiveConfig(span_rate=0.0, document_rate=1.0, document_min_ratio=0.25),
    "mixture": ObjectiveConfig(span_rate=0.5, sentence_rate=0.3, document_rate=0.2),
}


def synthetic_store(num_tokens: int, document_tokens: int, vocab_size: int = 8192) -> TokenStore:
    """Random ids in documents of `document_tokens` on average; every 20th ends a sentence."""
    rng = np.random.default_rng(0)
    sizes = rng.geometric(1 / document_tokens, num_tokens // document_tokens + 1)
    offsets = np.append(0, np.cumsum(sizes))
    tokens = rng.integers(20, vocab_size, offsets[-1])
    tokens[rng.random(len(tokens)) < 1 / 20] = 10
    special = SpecialTokens(mask=2, gmask=3, smask=4, start=5, end=6, cls=7, eos=8, pad=0)
    documents = Documents("train", tokens.astype(np.uint16), offsets)
    ends = np.arange(vocab_size) == 10
    return TokenStore(vocab_size, special, ends, {"train": documents}, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=512, help="T, slots of a row")
    parser.add_argument("--batch_size", type=int, default=256, help="rows built in one call")
    parser.add_argument("--document_tokens", type=int, default=1000, help="mean document size")
    parser.add_argument("--objective", choices=sorted(OBJECTIVES), default="span")
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()

    store = synthetic_store(4_000_000, args.document_tokens)
    data = DataConfig(sequence_length=args.length)
    builder = RowBuilder(store.splits["train"], store, data, OBJECTIVES[args.objective], seed=0)
    rng = np.random.default_rng(1)
    rates, filled, epoch = [], [], 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < args.seconds or len(rates) < 5:
        # A shuffled epoch: the rows of a batch lie anywhere in the store.
        rows = rng.integers(0, builder.num_rows, args.batch_size)
        start = time.process_time()
        _, counted = builder.build(np.full(args.batch_size, epoch), rows)
        rates.append(counted["source_tokens"] / (time.process_time() - start))
        filled.append(counted["places_used"] / (args.batch_size * args.length))
        epoch += 1
    result = {
        "tokens_per_second": round(float(np.median(rates))),
        "tokens_per_second_worst": round(min(rates)),
        "places_used": round(float(np.mean(filled)), 4),
        "objective": args.objective,
        "shape": [args.batch_size, args.length],
        "document_tokens": args.document_tokens,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
