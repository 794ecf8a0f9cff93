"""What the policy, its value head and the reference say of answers; computed once per cycle."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.losses.by_objective import hidden_of
from glm_jax.losses.policy import learnt, log_probs_and_entropy
from glm_jax.models.params import bind
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import batch_sharding, replicated
from glm_jax.training.defaults import for_devices
from glm_jax.training.feed import own_to_devices
from glm_jax.training.rollouts.rows import in_parts


@dataclasses.dataclass(frozen=True)
class Scores:
    """Numpy, [B, T] float32 each, 0 where nothing is predicted.

    Attributes:
      log_probs: of the targets under the policy.
      values: of its value head; None without one.
      reference: log-probabilities under the reference; None without one.
    """

    log_probs: np.ndarray
    values: np.ndarray | None
    reference: np.ndarray | None


class Scorer:
    """Scores rows of answers as the training step sees them: at the temperature of sampling."""

    def __init__(self, config: Config, mesh: Mesh):
        """Compiles nothing yet."""
        config = for_devices(config, mesh)
        self._size = config.data.batch_size // config.train.accumulation_steps
        self._sharding = batch_sharding(mesh)
        self._has_values = config.has_values
        sampling = config.rollouts

        def score(params: Params, batch: Batch, with_values: bool) -> tuple[jax.Array, ...]:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                model = bind(config.resolved_model, params)
                hidden = hidden_of(model, batch)
                found, _ = log_probs_and_entropy(
                    config.train,
                    mesh,
                    model,
                    batch,
                    hidden,
                    sampling.temperature,
                    sampling.max_new_tokens,
                )
                values = (model.values(hidden),) if with_values else ()
            there = learnt(batch)
            return tuple(jnp.where(there, one, 0.0) for one in (found, *values))

        self._score = jax.jit(score, static_argnames="with_values", out_shardings=replicated(mesh))

    def __call__(self, params: Params, reference: Params | None, batch: Batch) -> Scores:
        """Scores rows; all processes call it with the same.

        Args:
          params: of the policy.
          reference: of the reference, or None.
          batch: numpy, all rows of a cycle: a multiple of the rows of a micro-batch.
        """
        parts: list[list[np.ndarray]] = []
        for rows in in_parts(batch, self._size):
            on_devices = own_to_devices(rows, self._sharding)
            found = [*self._score(params, on_devices, self._has_values)]
            if reference is not None:
                found += self._score(reference, on_devices, False)
            parts.append([np.asarray(one) for one in found])
        whole = [np.concatenate(one) for one in zip(*parts, strict=True)]
        values = whole[1] if self._has_values else None
        return Scores(whole[0], values, None if reference is None else whole[-1])
