"""The tables of the infilling report: likelihoods by order, and losses by groups of targets."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from glm_jax.evaluation.infilling_report.scored import Scored
from glm_jax.evaluation.statistics import Estimate, mean, ratio
from glm_jax.ragged import group_of, within_groups

# First span lengths of the groups; the last group has no end.
_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 32)


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
      label: the group.
      estimates: by the names of columns.
    """

    label: str
    estimates: dict[str, Estimate]


_DECILES = 10


def orders_table(scored: Sequence[Scored]) -> list[Line]:
    """Log-likelihoods of the spans of each text with two spans or more, in nats.

    Columns: per text, per span, and per token (span ends are tokens). Differences are taken within
    each text, so that their errors are those of the differences.
    """
    some = [one for one in scored if len(one.text.spans) > 1]
    first = np.array([one.totals[0] for one in some])
    last = np.array([one.totals[one.orders.right_to_left] for one in some])
    middle = np.array([one.totals[one.orders.chosen].mean() for one in some])
    marginal = np.array([one.marginal for one in some])
    rows = {
        "left to right": first,
        "right to left": last,
        "mean over orders": middle,
        "marginal": marginal,
        "mean over orders - left to right": middle - first,
        "right to left - left to right": last - first,
        "marginal - mean over orders": marginal - middle,
        "standard deviation over orders": np.array([one.spread for one in some]),
    }
    spans = np.array([len(one.text.spans) for one in some])
    tokens = np.array([one.losses.shape[1] for one in some])
    return [
        Line(
            label,
            {
                "per text": mean(values),
                "per span": ratio(values, spans),
                "per token": ratio(values, tokens),
            },
        )
        for label, values in rows.items()
    ]


def by_objective(scored: dict[str, list[Scored]]) -> list[Line]:
    """The mean loss per token of each objective; spans in the mean over orders."""
    return [
        Line(
            name,
            {
                "loss": ratio(
                    np.array([one.mean_losses.sum() for one in some]),
                    np.array([one.losses.shape[1] for one in some]),
                )
            },
        )
        for name, some in scored.items()
    ]


def by_span_length(scored: Sequence[Scored]) -> list[Line]:
    """The loss by the length of the span in tokens: all targets, its tokens, and its end."""

    def group(one: Scored) -> np.ndarray:
        lengths = np.array([end - start for start, end in one.text.spans])
        return np.searchsorted(_LENGTHS, lengths, side="right")[group_of(one.sizes)] - 1

    labels = [
        f"{low}+" if high is None else (f"{low}" if high == low + 1 else f"{low}-{high - 1}")
        for low, high in zip(_LENGTHS, [*_LENGTHS[1:], None], strict=True)
    ]
    return _grouped(scored, group, labels)


def by_document_decile(scored: Sequence[Scored]) -> list[Line]:
    """The loss by where a target stands in its document."""
    return _grouped(scored, lambda one: _decile(one, one.text.first, one.text.document), _TENTHS)


def by_window_decile(scored: Sequence[Scored]) -> list[Line]:
    """The loss by where a target stands in its window: at the edges there is less context."""

    def group(one: Scored) -> np.ndarray:
        return _decile(one, 0, max(1, len(one.text.tokens) - 1))

    return _grouped(scored, group, _TENTHS)


def by_rank(scored: Sequence[Scored]) -> list[Line]:
    """The loss of spans that come first, second, .. in part B, behind the answers before them.

    Columns: `loss` per token; `gain`, how much lower it is than that of the same spans where they
    come first. Only texts with two spans or more, over the orders of the sample.
    """
    some = [one for one in scored if len(one.text.spans) > 1]
    most = max((len(one.text.spans) for one in some), default=0)
    lines = []
    for rank in range(most):
        losses, counts, gains, compared = np.array([_at_rank(one, rank) for one in some]).T
        estimates = {"loss": ratio(losses, counts), "gain": ratio(gains, compared)}
        lines.append(Line(str(rank + 1), estimates))
    return lines


def _at_rank(one: Scored, rank: int) -> tuple[float, float, float, float]:
    """Loss and targets of the spans at a rank; gain over rank 0 and targets of those compared."""
    ranks = one.orders.ranks[one.orders.chosen]
    losses, sizes = one.losses_of_spans[one.orders.chosen], one.sizes
    here, first = ranks == rank, ranks == 0
    both = here.any(axis=0) & first.any(axis=0)
    times = np.maximum(here.sum(axis=0), 1), np.maximum(first.sum(axis=0), 1)
    gain = (losses * first).sum(axis=0) / times[1] - (losses * here).sum(axis=0) / times[0]
    return (
        float((losses * here).sum()) / len(ranks),
        float((sizes * here).sum()) / len(ranks),
        float(gain[both].sum()),
        float(sizes[both].sum()),
    )


_TENTHS = [f"{10 * i}-{10 * i + 10} %" for i in range(_DECILES)]


def _decile(one: Scored, first: int, size: int) -> np.ndarray:
    """[n] the tenth of a text of `size` tokens that each target is in; an end is where its span's
    last token is."""
    spans, within = group_of(one.sizes), within_groups(one.sizes)
    start, end = np.array(one.text.spans)[spans].T
    index = np.minimum(start + within, end - 1)
    # tokens[0] is [CLS]; eos, behind the last token of the document, counts as that.
    return np.clip((first + index - 1) * _DECILES // size, 0, _DECILES - 1)


def _grouped(
    scored: Sequence[Scored], group: Callable[[Scored], np.ndarray], labels: Sequence[str]
) -> list[Line]:
    """A line per group of targets that occurs; `group` gives the group of each target, [n]."""
    shape = (len(scored), len(labels))
    sums = {name: np.zeros(shape) for name in ("loss", "without ends", "of ends")}
    counts = {name: np.zeros(shape) for name in sums}
    for index, one in enumerate(scored):
        groups, sizes = group(one), one.sizes
        ends = (within_groups(sizes) == sizes[group_of(sizes)] - 1) & one.text.closed
        for name, chosen in (("loss", ends | True), ("without ends", ~ends), ("of ends", ends)):
            sums[name][index] = np.bincount(
                groups[chosen], one.mean_losses[chosen], minlength=len(labels)
            )
            counts[name][index] = np.bincount(groups[chosen], minlength=len(labels))
    return [
        Line(label, {name: ratio(sums[name][:, i], counts[name][:, i]) for name in sums})
        for i, label in enumerate(labels)
        if counts["loss"][:, i].any()
    ]
