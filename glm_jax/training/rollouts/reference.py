"""The reference of rollouts: the model that a run begins with, kept as far as it is trained.

What is not trained is the policy's own. So for an adapter the reference costs the adapter, and for
a run that trains all of a model a second one, its matrices in the dtype of the computation.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glm_jax.adapters.fingerprint import fingerprint, shortened
from glm_jax.config import Config
from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.json_files import read_object
from glm_jax.models.trees import Params, join_params
from glm_jax.models.weights import is_matrix
from glm_jax.sharding.rules import path_name
from glm_jax.training.distributed import on_first
from glm_jax.training.state import initial_params

FILE = "reference.json"


class Reference:
    """The trained part of a model as it was at first."""

    def __init__(self, config: Config, mesh: Mesh, params: Params | None):
        """Makes it, as `glm_jax.training.state.create_state` makes that of a new run.

        Args:
          config, mesh: of the run.
          params: that the run began with; None: they are drawn.
        """
        trainable, _ = initial_params(config, mesh, params)
        self.fingerprint = shortened(fingerprint(trainable))
        dtype = config.compute.dtype

        def kept(path: tuple, leaf: jax.Array) -> jax.Array:
            # A copy: the array of a run's first state is given up in its first step.
            return leaf.astype(dtype) if is_matrix(path_name(path)) else jnp.copy(leaf)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, trainable)
        copied = jax.jit(lambda tree: jax.tree.map_with_path(kept, tree), out_shardings=shardings)
        self._trainable = copied(trainable)

    def params(self, frozen: Params) -> Params:
        """All parameters, with those that the policy does not train."""
        return join_params(self._trainable, frozen)

    def check(self, workdir: Path) -> None:
        """Records what the reference is, or refuses another than was recorded.

        Raises:
          UserError: the run in `workdir` began with another model.
        """

        def record() -> None:
            place = workdir / FILE
            if not place.exists():
                write_whole(place, json.dumps({"fingerprint": self.fingerprint}) + "\n")
                return
            before = read_object(place).get("fingerprint")
            if before != self.fingerprint:
                raise UserError(
                    f"the run in {str(workdir)!r} is held to another model than train.init_from "
                    f"has now: {before}, not {self.fingerprint}; put that one back, or begin again "
                    "in another workdir"
                )

        on_first(record, f"record the reference in {FILE}")
