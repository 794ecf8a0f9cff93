"""Devices of NVIDIA GPUs that this machine does not have, to compile for.

XLA's CUDA compiler, in the packages of `glm_jax[cuda]`, needs neither a GPU nor a driver, only a
description of the GPU:

    gpu_devices(CHIPS["h100"], 8) -> [8 x NVIDIA H100 80GB HBM3]

The devices can be put into a mesh and compiled for; nothing can run on them.
"""

import importlib.util
import os

import jax

from glm_jax.errors import UserError, how_to_install
from glm_jax.planning.chips import Gpu

_PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
# XLA's enum values of bfloat16 and float16.
_MATRIX_DTYPES = (16, 10)


def gpu_devices(chip: Gpu, count: int) -> list[jax.Device]:
    """`count` GPUs of one host.

    Args:
      chip: the kind of all devices.
      count: number of devices.

    Raises:
      UserError: jax's packages for CUDA are not installed.
    """
    if not any(map(_is_installed, _PLUGINS)):
        raise UserError(
            f"planning for {chip.name} needs XLA's compiler for CUDA, which runs without a GPU; "
            f"install it with: {how_to_install('cuda')}"
        )
    # Without this XLA warns of each program that is too large, which is a result here.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from jax.experimental import topologies

    # Loads the plugins, whatever platform JAX_PLATFORMS names.
    jax.devices()
    description = topologies.get_topology_desc(
        "", "cuda", topology=f"1x1x{count}", target_config=target_config(chip)
    )
    return list(description.devices)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def target_config(chip: Gpu) -> str:
    """XLA's `GpuTargetConfigProto` of a GPU, in protobuf's text format.

    Values that `Chip` does not hold are the same for all these GPUs (CUDA's programming guide,
    table of compute capabilities), or are the versions of the installed packages.
    """
    major, minor = chip.capability
    # Enables instructions that only this architecture has, such as Hopper's wgmma.
    feature = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    matrix = "".join(f"rate_infos {{ {_matrix_rate(chip, dtype)} }} " for dtype in _MATRIX_DTYPES)
    return f"""
gpu_device_info {{
  name: "{chip.device_kinds[0]}"
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability {major}.{minor}{"a" if major >= 9 else ""}"
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {feature} }}
  core_count: {chip.multiprocessors}
  fpus_per_core: {chip.fpus}
  clock_rate_ghz: {chip.clock_hz / 1e9}
  device_memory_size: {int(chip.hbm_gib * (1 << 30))}
  memory_bandwidth: {int(chip.hbm_bandwidth)}
  l2_cache_size: {chip.l2_bytes}
  shared_memory_per_core: {chip.shared_bytes}
  shared_memory_per_block: {48 << 10}
  shared_memory_per_block_optin: {chip.shared_bytes - (1 << 10)}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: {(1 << 31) - 1} block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  matrix_unit_description {{ {matrix}}}
  device_address_bits: 64
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{chip.device_kinds[0]}"
"""


def _matrix_rate(chip: Gpu, dtype: int) -> str:
    """The rate of one of 4 tensor cores per multiprocessor, at the clock that gives the peak."""
    per_clock = 512 if chip.capability[0] >= 9 else 256
    clock = chip.peak_flops / (2 * chip.multiprocessors * 4 * per_clock)
    return (
        f"key: {dtype} value {{ clock_rate_ghz: {clock / 1e9:.4f} units_per_core: 4 "
        f"ops_per_clock: {per_clock} }}"
    )
