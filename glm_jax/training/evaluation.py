"""Evaluation during training: the same held-out batches each time, without dropout."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Float64

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.losses.by_objective import objective_sums, summarize
from glm_jax.losses.registry import Sums, loss_of
from glm_jax.models.trees import Params
from glm_jax.training.step import make_eval_step
from glm_jax.training.unigram import unigram_losses


class Evaluator:
    """Losses of the eval batches under the model, and under the unigram baseline."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        batches: Sequence[Batch],
        counts: Float64[np.ndarray, "objectives V"],
    ):
        """Args:
        config: of the run.
        mesh: of the parameters and the batches.
        batches: global Batches on the devices, the same in every evaluation.
        counts: number of targets of the training rows by objective and id.
        """
        self._train = config.train
        self._loss = loss_of(config)
        self._batches = batches
        self._eval_step = make_eval_step(config, mesh)
        self.baseline = self._unigram(counts) if self._loss.of_targets else {}

    def __call__(self, params: Params) -> dict[str, float]:
        """Evaluates parameters.

        Returns:
          `eval/loss` (reduced like the training loss, over all batches at once) and
          `eval/loss/NAME` by objective; `eval/unigram_loss` and `eval/unigram_loss/NAME`, the
          baseline on the same targets. Of another loss than that of targets, `eval/NAME` of its own
          metrics, without a baseline.
        """
        sums = _total([self._eval_step(params, batch) for batch in self._batches])
        means = self._loss.summarize(self._train, sums)
        return {f"eval/{name}": float(value) for name, value in means.items()} | self.baseline

    def loss_of(self, params: Params, batch: Batch) -> float:
        """The loss of one batch, without dropout."""
        sums = self._eval_step(params, batch)
        return float(self._loss.summarize(self._train, sums)["loss"])

    def _unigram(self, counts: np.ndarray) -> dict[str, float]:
        """The baseline: each objective by its own frequencies, the overall loss by all of them."""
        by_objective = unigram_losses(counts)
        overall = np.broadcast_to(unigram_losses(counts.sum(0)), by_objective.shape)
        values: dict[str, float] = {}
        for table, names in ((overall, "overall"), (by_objective, "by objective")):
            sums = _total([_table_sums(table, batch) for batch in self._batches])
            means = summarize(sums, self._train.loss_reduction)
            loss = means.pop("loss")
            chosen = {"loss": loss} if names == "overall" else means
            values |= {f"eval/unigram_{name}": float(value) for name, value in chosen.items()}
        return values


@jax.jit
def _table_sums(table: Float32[jax.Array, "objectives V"], batch: Batch) -> Sums:
    """Sums of losses looked up in `table` by objective and target."""
    return objective_sums(jnp.asarray(table)[batch.objective, batch.targets], batch)


def _total(sums: list[Sums]) -> dict[str, np.ndarray]:
    """Adds sums of batches, in float64 on the host."""
    return {
        name: np.sum([np.asarray(one[name], np.float64) for one in sums], axis=0)
        for name in sums[0]
    }
