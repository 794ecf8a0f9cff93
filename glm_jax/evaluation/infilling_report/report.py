"""The task "infilling_report": what a model that fills blanks knows, and in which order.

held-out documents -> windows -> texts with spans -> every order of them -> tables
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glm_jax.batch import DOCUMENT, OBJECTIVES, SENTENCE, SPAN
from glm_jax.checks import check_choice
from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.identity import identity
from glm_jax.data.record import change_since
from glm_jax.data.store import TokenStore
from glm_jax.errors import UserError
from glm_jax.evaluation.infilling_report import tables
from glm_jax.evaluation.infilling_report.held_out import held_out_texts, windows
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.pages import draw_losses, draw_orders, page
from glm_jax.evaluation.infilling_report.scored import Scored
from glm_jax.evaluation.infilling_report.scoring import score
from glm_jax.evaluation.infilling_report.tables import Line
from glm_jax.evaluation.metrics_with_files import MetricsWithFiles
from glm_jax.pipeline.corpus import Corpus

if TYPE_CHECKING:
    from pathlib import Path

    from glm_jax.generation.language_model import LanguageModel

TEXTS = 200
# All orders of up to four spans; of more, so many are drawn.
ORDERS = 24
_NAMES = {value: name for name, value in OBJECTIVES.items()}


def infilling_report(
    lm: "LanguageModel",
    config: Config,
    split: str = "eval",
    texts: int = TEXTS,
    workdir: "Path | None" = None,
) -> MetricsWithFiles:
    """Scores held-out texts in many orders of their spans, and under each objective.

    Args:
      lm: a model that fills blanks.
      config: its `data`, `objective` and `train.seed` say which texts, and what is cut out of
        them. Options of `objective.published` that add noise to the rows of training are left out.
      split: of the corpus.
      texts: windows over all documents; fewer if the split has not so many.
      workdir: of a run; a warning is printed if its data has changed since.

    Returns:
      Metrics in nats per token (span ends are tokens), and the report's files: `report.json`,
      `report.md`, `orders.png`, `losses.png`.

    Raises:
      UserError: a causal model; a corpus of another tokenizer; objectives without a part B.
    """
    if lm.config.continues_texts:
        raise UserError(
            "the task 'infilling_report' needs a model that fills blanks; this one is causal"
        )
    _check_options(config)
    check_choice("split", split, list(SPLITS))
    length = config.data.sequence_length
    if lm.config.has_position_table:
        length = min(length, lm.config.max_positions)
    model = dataclasses.replace(config.model, vocab_size=lm.config.vocab_size)
    stores = Corpus(dataclasses.replace(config, model=model)).stores()
    if workdir is not None and (what := change_since(workdir, identity(stores))):
        print(f"warning: the data of the run has changed since: {what}", file=sys.stderr)
    _check_tokenizer(lm, config, stores)
    scored = _scored(lm, config, stores, (split, length, texts))
    return _report(scored, _settings(lm, config, scored["span"], (split, length)))


def _scored(
    lm: "LanguageModel",
    config: Config,
    stores: Mapping[str, tuple[float, TokenStore]],
    asked: tuple[str, int, int],
) -> dict[str, list[Scored]]:
    """The scored texts of each objective."""
    split, length, count = asked
    total, seed = sum(rate for rate, _ in stores.values()), config.train.seed
    masks = config.objective.published.task_masks
    found: dict[str, list[Scored]] = {_NAMES[kind]: [] for kind in (SPAN, SENTENCE, DOCUMENT)}
    for rate, store in stores.values():
        share = windows(store.splits[split], max(1, round(count * rate / total)), length)
        for kind in (SPAN, SENTENCE, DOCUMENT):
            texts: list[HeldOutText] = held_out_texts(
                store, share, split, kind, config.objective, length=length, seed=seed
            )
            found[_NAMES[kind]] += score(
                lm,
                texts,
                store.special,
                store.special.masks_by_objective(masks)[kind],
                length=length,
                most_orders=ORDERS if kind == SPAN else 1,
                seed=seed,
            )
    return found


def _report(scored: dict[str, list[Scored]], settings: dict[str, object]) -> MetricsWithFiles:
    spans = scored["span"]
    found = {
        "orders": tables.orders_table(spans),
        "objective": tables.by_objective(scored),
        "span length": tables.by_span_length(spans),
        "position in the document": tables.by_document_decile(spans),
        "position in the window": tables.by_window_decile(spans),
        "order in part B": tables.by_rank(spans),
    }
    content = {
        "settings": settings,
        "tables": {name: [_line(line) for line in lines] for name, lines in found.items()},
        "texts": [_text(one) for one in spans],
    }
    return MetricsWithFiles(
        _metrics(found),
        {"report.json": json.dumps(content, indent=1) + "\n", "report.md": page(settings, found)},
        {
            "orders.png": lambda path: draw_orders(spans, path),
            "losses.png": lambda path: draw_losses(found, path),
        },
    )


def _metrics(found: Mapping[str, list[Line]]) -> dict[str, float]:
    """The numbers that are printed: losses in nats per token, spread in nats per text."""
    orders = {line.label: line.estimates for line in found["orders"]}
    difference = orders["mean over orders - left to right"]["per token"]
    metrics = {f"loss/{line.label}": line.estimates["loss"].value for line in found["objective"]}
    metrics |= {
        f"orders/{label.replace(' ', '_')}": -orders[label]["per token"].value
        for label in ("left to right", "right to left", "mean over orders", "marginal")
    }
    return metrics | {
        "orders/mean_worse_by": -difference.value,
        "orders/standard_error": difference.error,
        "orders/spread_per_text": orders["standard deviation over orders"]["per text"].value,
        "orders/texts": float(difference.texts),
    }


def _line(line: Line) -> dict[str, object]:
    columns = {name: estimate.as_dict() for name, estimate in line.estimates.items()}
    return {"group": line.label, **columns}


def _text(one: Scored) -> dict[str, object]:
    """One text for report.json: log-likelihoods of its spans in nats."""
    totals, sample = one.totals, one.orders.chosen
    return {
        "window": one.text.index,
        "spans": len(one.text.spans),
        "tokens": one.losses.shape[1],
        "orders": int(sample.sum()),
        "all_orders": one.orders.exact,
        "left_to_right": float(totals[0]),
        "right_to_left": float(totals[one.orders.right_to_left]),
        "mean": float(totals[sample].mean()),
        "marginal": one.marginal,
        "standard_deviation": one.spread,
    }


def _settings(
    lm: "LanguageModel", config: Config, scored: list[Scored], asked: tuple[str, int]
) -> dict[str, object]:
    split, length = asked
    objective, data = config.objective, config.data
    several = [one for one in scored if len(one.text.spans) > 1]
    return {
        "corpus": data.store or (data.source if data.mixture is None else str(data.mixture)),
        "split": split,
        "slots per row": length,
        "texts": len(scored),
        "texts with two spans or more": len(several),
        "of these in all orders": sum(one.orders.exact for one in several),
        "orders drawn for the others": ORDERS,
        "seed": config.train.seed,
        "mask_ratio": objective.mask_ratio,
        "mean_span_length": objective.mean_span_length,
    }


def _check_options(config: Config) -> None:
    options = config.objective.published
    if options.masked_lm or options.sentinel_id is not None:
        name = "masked_lm" if options.masked_lm else "sentinel_id"
        raise UserError(
            f"the task 'infilling_report' has no rows of objective.published.{name}; its spans "
            "stand in part B, with one mask and one start token for all"
        )


def _check_tokenizer(
    lm: "LanguageModel", config: Config, stores: Mapping[str, tuple[float, TokenStore]]
) -> None:
    special = {store.special for _, store in stores.values()}
    sizes = {store.vocab_size for _, store in stores.values()}
    if lm.tokenizer is not None and (special, sizes) != (
        {lm.tokenizer.special},
        {lm.tokenizer.vocab_size},
    ):
        raise UserError(
            f"data.tokenizer={config.data.tokenizer!r} is another tokenizer than the checkpoint's; "
            "give --set data.tokenizer=DIR, the checkpoint's directory"
        )
