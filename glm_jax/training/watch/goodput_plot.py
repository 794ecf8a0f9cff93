"""Draws `goodput.png`: the loss over wall time, and under it what the time was spent on."""

from pathlib import Path

from glm_jax.files import written
from glm_jax.training.watch.goodput_log import ALL, DOWN, LOST, STEPS, History
from glm_jax.training.watch.metrics import Row

_BARS = 300
_COLOURS = {STEPS: "#2ca02c", LOST: "#d62728", DOWN: "#555555", "other": "#bbbbbb"}
_COLOURS |= {"compiling": "#1f77b4", "waiting_for_data": "#ff7f0e", "saving": "#9467bd"}
_COLOURS |= {"evaluating": "#17becf", "sampling": "#e377c2", "starting": "#8c6d31"}
_COLOURS |= {"rolling_out": "#98df8a"}


def plot_goodput(history: History, rows: list[Row], image: Path) -> None:
    """Draws a run; restarts are dashed lines.

    Args:
      history: of the run.
      rows: of its metrics.jsonl; those with `loss` and `time/wall` are drawn.
      image: written; its suffix says the format.

    Raises:
      OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # takes a second to import

    unit, scale = _unit(history.wall)
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    drawn = [row for row in rows if "loss" in row and "time/wall" in row]
    times = [row["time/wall"] * 1e9 / scale for row in drawn]
    above.plot(times, [row["loss"] for row in drawn], color="black", linewidth=0.8)
    above.set_ylabel("training loss")
    above.grid(alpha=0.3)
    width, shares = bars(history, _BARS)
    bottom = [0.0] * len(shares)
    for name in ALL:
        heights = [100 * share.get(name, 0.0) for share in shares]
        if not any(heights):
            continue
        middles = [(index + 0.5) * width / scale for index in range(len(shares))]
        total = history.nanoseconds[name] / max(history.wall, 1)
        label = f"{name.replace('_', ' ')} {total:.1%}"
        below.bar(middles, heights, width / scale, bottom, color=_COLOURS[name], label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for moment in history.beginnings[1:]:
        for axes in (above, below):
            axes.axvline(moment / scale, color="black", linestyle="--", linewidth=0.8)
    below.set_xlim(0, max(history.wall, 1) / scale)
    below.set_ylim(0, 100)
    below.set_ylabel("time, per cent")
    below.set_xlabel(f"{unit} since the run began")
    if below.patches:
        below.legend(fontsize="x-small", ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    with written(image) as temporary:
        figure.savefig(temporary, dpi=120)


def bars(history: History, count: int) -> tuple[float, list[dict[str, float]]]:
    """The run in pieces of equal length.

    Returns:
      The length of one in nanoseconds, and for each the share of every category, summing to 1.
    """
    width = max(history.wall, 1) / count
    shares: list[dict[str, float]] = [{} for _ in range(count)]
    for began, ended, spent in history.intervals():
        first, last = int(began / width), min(int(ended / width), count - 1)
        for index in range(first, last + 1):
            covered = min(ended, (index + 1) * width) - max(began, index * width)
            for name, value in spent.items():
                part = value * covered / (ended - began) / width
                shares[index][name] = shares[index].get(name, 0.0) + part
    return width, shares


def _unit(wall: int) -> tuple[str, float]:
    for unit, seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if wall >= 2 * seconds * 1e9:
            return unit, seconds * 1e9
    return "seconds", 1e9
