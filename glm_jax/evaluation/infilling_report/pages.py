"""The infilling report for people: a page of markdown and two pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.evaluation.infilling_report.scored import Scored
from glm_jax.evaluation.infilling_report.tables import Line
from glm_jax.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tables = Mapping[str, Sequence[Line]]

_INTRODUCTION = """# Infilling report

All numbers are in nats. A token is a target of part B, the end of a span included; behind ±
stands the standard error over texts.

"""

_ORDERS = """
## Orders of the spans

The log-likelihood of a text's spans, given the text around them, when part B has them from left to
right, from right to left, and in a random order. The mean over orders is what training maximises.
By Jensen's inequality it is at most the *marginal*, the log of the mean likelihood over orders;
where both agree, the order does not matter to the model. The standard deviation over orders is
taken within each text.

"""

_ABOUT = {
    "objective": "Loss per token of spans ([MASK]), sentences ([sMASK]) and long stretches "
    "([gMASK]) cut out of the same windows. Spans are in all orders.",
    "span length": "`loss` is that of all targets of a span; the end alone is that of knowing "
    "where it ends.",
    "position in the document": "Where the target stands in its document. The model sees the "
    "window, not the document.",
    "position in the window": "Where the target stands in what the model sees.",
    "order in part B": "Spans that come first, second, .. in part B. `gain`: how much lower the "
    "loss is than that of the same spans where they come first, before any answer is seen.",
}


def page(settings: Mapping[str, object], tables: Tables) -> str:
    """The report as markdown."""
    lines = [f"* {name}: {value}\n" for name, value in settings.items()]
    text = _INTRODUCTION + "".join(lines) + _ORDERS + _table("", tables["orders"])
    text += "\n![orders](orders.png)\n\n![losses](losses.png)\n"
    for name, about in _ABOUT.items():
        if tables[name]:
            text += f"\n## Loss by {name}\n\n{about}\n\n{_table(name, tables[name])}"
    return text


def _table(name: str, lines: Sequence[Line]) -> str:
    columns = list(lines[0].estimates)
    first = columns[0]
    counted = [] if first == "per text" else ["targets"]
    rows = [[name, *columns, "texts", *counted], ["---"] * (len(columns) + 2 + len(counted))]
    for line in lines:
        estimate = line.estimates[first]
        cells = [_cell(line.estimates[column]) for column in columns]
        counts = [str(estimate.texts), f"{estimate.count:.0f}"]
        rows.append([line.label, *cells, *counts[: 1 + len(counted)]])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return ""
    error = "" if math.isnan(estimate.error) else f" ± {estimate.error:.4f}"
    return f"{estimate.value:.4f}{error}"


def draw_orders(scored: Sequence[Scored], path: Path) -> None:
    """Draws how far the directions and all orders are from a text's mean over orders."""
    from matplotlib.figure import Figure  # takes a second to import

    some = [one for one in scored if len(one.text.spans) > 1]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    if some:
        spread = [one.totals[one.orders.chosen] - _middle(one) for one in some]
        bins = np.linspace(-1.05, 1.05, 43) * max(1e-6, *(abs(v).max() for v in spread))
        first = [float(one.totals[0]) - _middle(one) for one in some]
        last = [float(one.totals[one.orders.right_to_left]) - _middle(one) for one in some]
        for values, label, colour in (
            (np.concatenate(spread), "all orders of all texts", "0.75"),
            (first, "left to right", "C0"),
            (last, "right to left", "C1"),
        ):
            filled = {} if colour == "0.75" else {"histtype": "step", "linewidth": 1.8}
            left.hist(values, bins, density=True, label=label, color=colour, **filled)
        for values, colour in ((first, "C0"), (last, "C1")):
            left.axvline(float(np.mean(values)), color=colour, linestyle=":")
        left.legend(fontsize="small")
        spans = np.array([len(one.text.spans) for one in some])
        right.scatter(spans, [one.spread for one in some], s=8, label="standard deviation")
        gap = [one.marginal - _middle(one) for one in some]
        right.scatter(spans, gap, s=8, marker="x", label="marginal - mean")
        right.set_xticks(np.unique(spans))
        right.legend(fontsize="small")
    left.set_xlabel("log-likelihood - mean over orders of the text, nats")
    left.set_ylabel("density")
    right.set_xlabel("spans in the text")
    right.set_ylabel("nats per text")
    figure.savefig(path, dpi=100)


def _middle(one: Scored) -> float:
    return float(one.totals[one.orders.chosen].mean())


def draw_losses(tables: Tables, path: Path) -> None:
    """Draws the losses by span length, by position and by order in part B."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 2).flat
    names = ("span length", "order in part B", "position in the document", "position in the window")
    for axes, name in zip(panels, names, strict=True):
        for column in ("loss", "without ends", "of ends"):
            _draw_column(axes, tables[name], column)
        axes.set_xlabel(name)
        axes.set_ylabel("nats per token")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def _draw_column(axes: "Axes", lines: Sequence[Line], column: str) -> None:
    """One column of a table as points with bars of one standard error."""
    some = [line for line in lines if column in line.estimates]
    some = [line for line in some if not math.isnan(line.estimates[column].value)]
    if not some:
        return
    labels = [line.label.removesuffix(" %") for line in some]
    values = [line.estimates[column].value for line in some]
    errors = [line.estimates[column].error for line in some]
    axes.errorbar(labels, values, np.nan_to_num(errors), marker="o", markersize=3, label=column)
    axes.tick_params(axis="x", labelsize="x-small")
