"""Sharding: the mesh of devices, and one table from parameter path to mesh axes."""

from glm_jax.sharding.mesh import make_mesh

__all__ = ["make_mesh"]
