"""A trained prefix apart from its encoder, for what computes with it many times over."""

import dataclasses

import jax

from glm_jax.config.model import ResolvedModel
from glm_jax.models.prefix import Projected
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import with_mesh_of_params


def with_plain_prefix(
    config: ResolvedModel, params: Params, dtype: str = "float32"
) -> tuple[ResolvedModel, Params]:
    """The same model with its prefix as a plain table, which what an encoder made then is.

    Args:
      config, params: of a model, with a prefix or without.
      dtype: of the table; what computes in `compute.dtype` loses nothing by that.

    Returns:
      The config and the parameters; those of the model itself without a prefix, or where it is
      that already.
    """
    if not config.prefix_length or (
        config.prefix_projection is None and params["prefix"]["table"].dtype == dtype
    ):
        return config, params
    prefix = params["prefix"]
    table = prefix["table"] if config.prefix_projection is None else _table(prefix)
    config = dataclasses.replace(config, prefix_projection=None, prefix_embed_dim=None)
    return config, {**params, "prefix": {"table": table.astype(dtype)}}


@with_mesh_of_params
@jax.jit
def _table(prefix: Params) -> jax.Array:
    """float32 [L, 2, P, K, H]."""
    matrices = [prefix[part][name] for part in ("up", "down") for name in ("kernel", "bias")]
    return Projected(prefix["rows"]["table"], *matrices).table()
