"""A text with the losses of its targets in several orders, and what follows from them.

orders of two spans      0 1     1 0
log p(spans | order)     -7.0    -7.4
mean over orders         -7.2             by Jensen's inequality at most
marginal                 -7.18            log((e^-7.0 + e^-7.4) / 2)
spread                   0.2              standard deviation over orders
"""

import dataclasses

import numpy as np

from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.orders import Orders


@dataclasses.dataclass(frozen=True)
class Scored:
    """A text and the losses of its targets in several orders.

    Attributes:
      text: S spans, n targets: the tokens of the spans, and an end token per closed span.
      orders: O orders.
      losses: [O, n] float64, nats; targets are in the order of the text, whatever the order of
        part B: span after span, the end token last in each.
    """

    text: HeldOutText
    orders: Orders
    losses: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """[S] targets of each span."""
        return self.text.sizes

    @property
    def totals(self) -> np.ndarray:
        """[O] log-likelihood of all spans in each order, in nats."""
        return -self.losses.sum(axis=1)

    @property
    def losses_of_spans(self) -> np.ndarray:
        """[O, S] the sum over the targets of each span."""
        return np.add.reduceat(self.losses, np.cumsum(self.sizes) - self.sizes, axis=1)

    @property
    def mean_losses(self) -> np.ndarray:
        """[n] mean over the orders of the sample: what training minimises, in expectation."""
        return self.losses[self.orders.chosen].mean(axis=0)

    @property
    def spread(self) -> float:
        """Standard deviation over orders of `totals`: of all orders, or estimated from a sample."""
        sample = self.totals[self.orders.chosen]
        return float(sample.std(ddof=0 if self.orders.exact else 1))

    @property
    def marginal(self) -> float:
        """log of the mean over orders of the likelihood: the order as a uniform latent variable.

        With a sample of the orders it is, in expectation, a little too low.
        """
        sample = self.totals[self.orders.chosen]
        return float(np.logaddexp.reduce(sample) - np.log(len(sample)))
