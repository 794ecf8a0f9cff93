"""Writes a model as a Hugging Face directory, loads it, and compares the logits.

    python examples/load_from_hugging_face.py [DIR] [--out runs/hugging_face]

DIR is a directory as published, of any model in docs/checkpoints.md; the model is held twice, once
as it is in DIR and once as it is in the copy. Without DIR a small model with random weights stands
for one.

It prints

    LanguageModel(4 layers x 128, continues texts: 2,623,616 parameters, float32, ...)
    wrote config.json model.safetensors
    114688 logits, all equal: True
    largest difference to transformers 6.0e-07

The last line needs torch and transformers (`pip install -e '.[interop]'`).
"""

import argparse
import json
from pathlib import Path

import numpy as np

import glm_jax
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_chatglm_cpu.py"


def small_model() -> glm_jax.LanguageModel:
    """ChatGLM2's layers, small, with random weights."""
    config = glm_jax.load_config(CONFIG)
    mesh = make_mesh(config.mesh)
    model = config.resolved_model
    return glm_jax.LanguageModel(model, create_params(model, mesh, seed=0))


def causal_batch(ids: np.ndarray) -> glm_jax.Batch:
    """One row that every model of the family reads: each token sees itself and those before it."""
    length = len(ids)
    start, end = glm_jax.prefix_bounds(0, length)
    zeros = np.zeros(length, np.int32)
    row = {"tokens": ids, "positions": np.arange(length, dtype=np.int32), "block_positions": zeros}
    row |= {"attend_start": start, "attend_end": end}
    # For logits alone there is nothing to predict.
    row |= {"targets": zeros, "loss_weights": zeros.astype(np.float32)}
    return glm_jax.Batch.from_dict({name: values[None] for name, values in row.items()})


def compare_with_transformers(directory: Path, ids: np.ndarray, logits: np.ndarray) -> str:
    """What transformers, where it is installed, makes of the directory."""
    kind = json.loads((directory / "config.json").read_text()).get("model_type")
    if kind not in ("glm", "glm4"):
        return "transformers has no code of its own for a model under these names"
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError:
        return "torch and transformers are not installed: pip install -e '.[interop]'"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(ids[None].astype(np.int64))).logits.numpy()
    return f"largest difference to transformers {np.abs(theirs - logits).max():.1e}"


def main(argv: list[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits of the model and of its copy."""
    parser = argparse.ArgumentParser(description="Writes, loads and compares a model.")
    parser.add_argument("directory", nargs="?", help="of a model; without it: a small random one")
    parser.add_argument("--out", type=Path, default=Path("runs/hugging_face"))
    args = parser.parse_args(argv)

    lm = glm_jax.load(args.directory, compute_dtype="float32") if args.directory else small_model()
    print(lm)
    lm.save(args.out, format="huggingface")  # names="native": names that transformers knows
    print("wrote", *sorted(path.name for path in args.out.iterdir()))
    copy = glm_jax.load(args.out, compute_dtype="float32")

    ids = np.random.default_rng(0).integers(0, lm.config.vocab_size, 16).astype(np.int32)
    batch = causal_batch(ids)
    logits, again = np.asarray(lm.logits(batch)), np.asarray(copy.logits(batch))
    print(f"{logits.size} logits, all equal: {np.array_equal(logits, again)}")
    print(compare_with_transformers(args.out, ids, logits))
    return logits, again


if __name__ == "__main__":
    main()
