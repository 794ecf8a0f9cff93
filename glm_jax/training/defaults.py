"""Defaults of config fields that depend on the kind of device."""

import dataclasses

from jax.sharding import Mesh

from glm_jax.config import Config


def for_devices(config: Config, mesh: Mesh) -> Config:
    """The config with its None fields set for the mesh's devices.

    These are `compute.scan_layers`, `train.cross_entropy` and `train.loss_chunk`.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    compute, train = config.compute, config.train
    if compute.scan_layers is None:
        compute = dataclasses.replace(compute, scan_layers=not on_cpu)
    if train.cross_entropy is None:
        method = "gradient_in_forward" if on_cpu else "chunked"
        train = dataclasses.replace(train, cross_entropy=method)
    if train.loss_chunk is None:
        train = dataclasses.replace(train, loss_chunk=256 if on_cpu else 1024)
    return dataclasses.replace(config, compute=compute, train=train)
