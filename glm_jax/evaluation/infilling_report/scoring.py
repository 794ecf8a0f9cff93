"""The likelihood of the spans of held-out texts, in many orders of the spans.

GLM factorises p(spans | part A) in the order of part B, and is trained on all orders (GLM,
arXiv:2103.10360, equation 1: the mean over orders of the log-likelihood is the objective). A model
whose conditional distributions agreed with one joint distribution would give the same likelihood in
every order. How far it is from that is measured here; `Scored` has the numbers.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.batch import Batch, empty_fields
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.orders import Orders, orders_of
from glm_jax.evaluation.infilling_report.scored import Scored
from glm_jax.evaluation.rows import losses_of_targets
from glm_jax.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

# Slots that run at once: rows of T slots, at least one.
_SLOTS = 4096


def score(
    lm: "LanguageModel",
    texts: Iterable[HeldOutText],
    special: SpecialTokens,
    mask: int,
    *,
    length: int,
    most_orders: int,
    seed: int,
) -> list[Scored]:
    """Scores texts in all orders of their spans, or in `most_orders` of them and both directions.

    Args:
      lm: the model.
      texts: their rows take `length` slots at most.
      special, mask: ids; `mask` stands for a span.
      length: T; all rows run in batches of one shape.
      most_orders: see `orders_of`; 1: from left to right alone.
      seed: of the drawn orders.
    """
    found = [(text, _orders(text, most_orders, seed)) for text in texts]
    rows = ((text, order) for text, orders in found for order in orders.orders.tolist())
    losses = _losses(lm, rows, special, mask, length)
    return [
        Scored(text, orders, np.stack(list(islice(losses, len(orders.orders)))))
        for text, orders in found
    ]


def _orders(text: HeldOutText, most: int, seed: int) -> Orders:
    if most == 1:
        return Orders(np.arange(len(text.spans))[None], np.ones(1, bool), len(text.spans) == 1)
    return orders_of(len(text.spans), most, seed, text.index)


def _losses(
    lm: "LanguageModel",
    rows: Iterator[tuple[HeldOutText, list[int]]],
    special: SpecialTokens,
    mask: int,
    length: int,
) -> Iterator[np.ndarray]:
    """The losses of each row's targets [n], in the order of the text."""
    at_once = max(1, _SLOTS // length)
    while some := list(islice(rows, at_once)):
        fields = empty_fields((at_once, length), special.pad)
        for index, (text, order) in enumerate(some):
            for name, values in text.row(order, special, mask).items():
                fields[name][index, : len(values)] = values
        found = losses_of_targets(lm, Batch(**fields))
        for index, (text, order) in enumerate(some):
            yield _in_text_order(found[index][fields["loss_weights"][index] > 0], text, order)


def _in_text_order(losses: np.ndarray, text: HeldOutText, order: Sequence[int]) -> np.ndarray:
    """[n] losses in the order of part B, brought into the order of the text."""
    span = np.repeat(order, text.sizes[np.asarray(order)])
    return losses[np.argsort(span, kind="stable")]
