"""Draws docs/attention_masks.png: which keys each query sees, in the four kinds of model.

    python tools/make_mask_figure.py

Every mask is the interval `attend_start[i] <= j < attend_end[i]` of a batch.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import glm_jax

OUT = Path(__file__).resolve().parent.parent / "docs" / "attention_masks.png"


def masks() -> dict[str, tuple[str, np.ndarray]]:
    """Title -> labels of the slots, and [T, T] bool, what each query sees."""
    glm = glm_jax.corruption.assemble(
        [1, 2, 3, 4, 5, 6], [(2, 3), (4, 6)], [1, 0], mask_id=7, start_id=8, end_id=9
    )
    first, second = glm_jax.prefix_bounds(3, 5), glm_jax.prefix_bounds(2, 5)
    packed = [np.concatenate([one, two + 5]) for one, two in zip(first, second, strict=True)]
    return {
        "GLM (2021): spans cut out": (
            "x1 x2 [M] x4 [M] S x5 x6 S x3",
            seen(glm["attend_start"], glm["attend_end"]),
        ),
        "ChatGLM-6B: prompt, then answer": (
            "q1 q2 [g] S y1 y2 y3 y4 y5",
            seen(*glm_jax.prefix_bounds(3, 9)),
        ),
        "ChatGLM2/3, GLM-4: causal": (
            "q1 q2 q3 y1 y2 y3 y4 y5 y6",
            seen(*glm_jax.prefix_bounds(0, 9)),
        ),
        "Packed: two texts in a row": ("a1 a2 [M] S a3 b1 [M] S b2 b3", seen(*packed)),
    }


def seen(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """[T, T] bool: whether query i sees key j."""
    keys = np.arange(len(start))
    return (start[:, None] <= keys) & (keys < end[:, None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    args = parser.parse_args()
    figure = Figure(figsize=(13, 3.6), layout="constrained", facecolor="white")
    for axes, (title, (spelt, mask)) in zip(figure.subplots(1, 4), masks().items(), strict=True):
        labels = spelt.split()
        size = len(labels)
        axes.imshow(mask, cmap="Blues", vmin=0, vmax=1.6)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(size), labels, fontsize=8)
        axes.set_yticks(range(size), labels, fontsize=8)
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("key", fontsize=9)
    figure.axes[0].set_ylabel("query", fontsize=9)
    figure.savefig(args.out, dpi=110, metadata={"Software": None})
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
