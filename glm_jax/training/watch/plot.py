"""Draws `loss.png`: training and evaluation losses over steps, by objective."""

from pathlib import Path

from glm_jax.batch import OBJECTIVES
from glm_jax.files import written
from glm_jax.training.watch.metrics import Row, read_metrics

_COLOURS = dict(zip(["", *OBJECTIVES], ["black", "C0", "C1", "C2", "C3", "C4"], strict=True))


def plot_losses(metrics: Path, image: Path) -> None:
    """Draws a `metrics.jsonl`.

    Each objective has a colour: a thin line for training, a thick one with points for evaluation,
    and a dashed one for the unigram loss, the loss of a model that ignores context.
    """
    from matplotlib.figure import Figure  # takes a second to import

    rows = read_metrics(metrics)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
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
    axes.set_ylabel("cross entropy, nats per target")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
    with written(image) as temporary:
        figure.savefig(temporary, dpi=120)


def _series(rows: list[Row], name: str) -> tuple[list[int], list[float]]:
    pairs = [(int(row["step"]), row[name]) for row in rows if name in row]
    return [step for step, _ in pairs], [value for _, value in pairs]
