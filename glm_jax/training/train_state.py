"""The training state: all that changes from step to step, as one plain tree of arrays."""

import dataclasses

import jax
import optax

from glm_jax.models.trees import Params, join_params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state that `train_step` takes and returns; `jax.ShapeDtypeStruct`s in an abstract one.

    Attributes:
      step: int32 scalar, number of steps done.
      trainable: nested dict of the parameters that are trained.
      frozen: nested dict of the other parameters; {} if all are trained (`train.trainable`).
      opt_state: optax state: the moments of each trained parameter, and counters.
    """

    step: jax.Array
    trainable: Params
    frozen: Params
    opt_state: optax.OptState

    @property
    def params(self) -> Params:
        """All of the model's parameters."""
        return join_params(self.trainable, self.frozen)
