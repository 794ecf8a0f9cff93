"""Quantises a model: how much smaller it is, what that costs, and where it is kept.

    python examples/quantize.py [--checkpoint DIR] [--output DIR]

Without --checkpoint it is the small model of the package.
It prints


    bfloat16                       13.2 MB   perplexity 53.55
    int8                            8.5 MB   perplexity 53.54
    int4                            6.2 MB   perplexity 55.32
    int4, groups of 128, search     6.2 MB   perplexity 54.41
    runs/quantized: 6.3 MB
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

import glm_jax
from glm_jax.evaluation.tasks import TASKS

WAYS = {
    "bfloat16": None,
    "int8": "int8",
    "int4": "int4",
    "int4, groups of 128, search": glm_jax.Quantize(4, group_size=128, search=True),
}


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """Returns the size in MB and the perplexity of each way."""
    parser = argparse.ArgumentParser(description="Quantises a model.")
    parser.add_argument("--checkpoint", default="bundled", help="any model with a tokenizer")
    parser.add_argument("--output", type=Path, default=Path("runs/quantized"), metavar="DIR")
    parser.add_argument("--num_examples", type=int, default=40, help="documents, for perplexity")
    args = parser.parse_args(argv)

    found = {}
    for name, how in WAYS.items():
        # Tensor by tensor: the plain model is never whole in memory.
        lm = glm_jax.load(args.checkpoint, dtype="bfloat16", quantize=how)
        found[name] = megabytes(lm), perplexity(lm, args.num_examples)
        print(f"{name:<28} {found[name][0]:6.1f} MB   perplexity {found[name][1]:.2f}")

    # A saved one stays as it is, and loads without the plain model: `lm` is the last way.
    lm.save(args.output)
    again = glm_jax.load(args.output)
    assert perplexity(again, args.num_examples) == found[name][1]
    print(f"{args.output}: {sum(p.stat().st_size for p in args.output.iterdir()) / 1e6:.1f} MB")
    return found


def perplexity(lm: glm_jax.LanguageModel, num_examples: int) -> float:
    """As `python -m glm_jax.evaluate --task perplexity` has it: of held-out bundled text."""
    assert lm.tokenizer is not None
    return TASKS["perplexity"](lm, lm.tokenizer, num_examples)["perplexity"]


def megabytes(lm: glm_jax.LanguageModel) -> float:
    """The size of all parameters; two integers of 4 bits take a byte."""
    bits = (leaf.size * (4 if leaf.dtype == "int4" else 8 * leaf.dtype.itemsize)
            for leaf in jax.tree.leaves(lm.params))  # fmt: skip
    return sum(bits) / 8e6


if __name__ == "__main__":
    main()
