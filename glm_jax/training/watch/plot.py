"""Draws `loss.png`: training and evaluation losses over steps, by objective; rewards above them."""

from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax.batch import OBJECTIVES
from glm_jax.files import written
from glm_jax.training.watch.metrics import Row, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = dict(zip(["", *OBJECTIVES], ["black", "C0", "C1", "C2", "C3", "C4"], strict=True))


def plot_losses(metrics: Path, image: Path) -> None:
    """Draws a `metrics.jsonl`.

    Each objective has a colour: a thin line for training, a thick one with points for evaluation,
    and a dashed one for the unigram loss, the loss of a model that ignores context. Of a policy the
    rewards of its answers are drawn above, in training and held out.
    """
    from matplotlib.figure import Figure  # takes a second to import

    rows = read_metrics(metrics)
    has_rewards = any("reward" in row for row in rows)
    figure = Figure(figsize=(8, 8 if has_rewards else 5), layout="constrained")
    *above, axes = figure.subplots(2 if has_rewards else 1, 1, sharex=True, squeeze=False)[:, 0]
    for panel in above:
        _draw_rewards(panel, rows)
    for objective, colour in _COLOURS.items():
        suffix = f"/{objective}" if objective else ""
        label = objective or "all"
        for name, title, style in (
            (f"loss{suffix}", f"{label}, training", {"linewidth": 0.7, "alpha": 0.5}),
            (f"eval/loss{suffix}", f"{label}, held out", {"linewidth": 2, "marker": "o"}),
            (f"eval/unigram_loss{suffix}", f"{label}, unigram", {"linestyle": "--"}),
        ):
            steps, values = _series(rows, name)
            if steps:
                axes.plot(steps, values, color=colour, label=title, markersize=3, **style)
    axes.set_xlabel("step")
    axes.set_ylabel("loss" if has_rewards else "cross entropy, nats per target")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
    with written(image) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_rewards(axes: "Axes", rows: list[Row]) -> None:
    """Mean rewards, and from their least to their largest."""
    steps, values = _series(rows, "reward")
    axes.plot(steps, values, color="C0", label="answers in training", linewidth=0.9)
    for name in ("reward/least", "reward/largest"):
        axes.plot(*_series(rows, name), color="C0", alpha=0.25, linewidth=0.5)
    axes.plot(*_series(rows, "eval/reward"), color="black", label="held out, greedy", marker="o")
    axes.set_ylabel("reward")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _series(rows: list[Row], name: str) -> tuple[list[int], list[float]]:
    pairs = [(int(row["step"]), row[name]) for row in rows if name in row]
    return [step for step, _ in pairs], [value for _, value in pairs]
