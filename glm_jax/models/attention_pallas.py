"""When and how the Pallas kernels compute attention.

Pallas is imported only where a kernel can run. Which platform a program is for is asked where
Pallas itself asks: the device of the mesh that is set, else the default backend. So a program that
is compiled for a TPU which this machine does not have gets the kernel where it is traced under

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):      mesh of the TPU's devices
"""

import functools

import jax

from glm_jax.models.attention_sharded import over_mesh, split_for
from glm_jax.models.dropout import MaskRows, mask_rows

# Below that many queries a row (decoding), a block of 128 would be mostly padding.
FEWEST_QUERIES = 64


def target_platform() -> str:
    """What the program that is being traced will run on: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def refuses_tpu(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    attend_start: jax.Array,
    attend_end: jax.Array,
    *,
    scale: float,
    dropout_rate: float,
    dropout_key: jax.Array | None,
) -> str | None:
    """Why `glm_jax.kernels.interval_attention` cannot compute this call here, or None."""
    platform = target_platform()
    if platform != "tpu":
        return f"needs a TPU; this is for {platform}"
    if jax.sharding.get_abstract_mesh().empty and jax.device_count() > 1:
        return (
            f"there are {jax.device_count()} devices and no mesh is set that says how to split "
            "(jax.sharding.use_abstract_mesh)"
        )
    from glm_jax.kernels.interval_attention import refusal

    split = split_for(q.shape, k.shape[2])
    part = jax.ShapeDtypeStruct(split.local(q.shape), q.dtype)
    return refusal(part, k, dropout_rate if dropout_key is not None else 0.0)


def declines_tpu(q: jax.Array, *arguments, **options) -> str | None:
    """Why "auto" looks further although the kernel could serve."""
    if q.shape[1] < FEWEST_QUERIES:
        return f"{q.shape[1]} queries a row are few; a block has 128"
    return None


def run_tpu(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    attend_start: jax.Array,
    attend_end: jax.Array,
    *,
    scale: float,
    dropout_rate: float,
    dropout_key: jax.Array | None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The kernel, on each device of the mesh that is set; returns what `dense` does."""
    rows = None
    if dropout_key is not None and dropout_rate > 0.0:
        rows = mask_rows(dropout_key, (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    run = functools.partial(_run, scale=scale, rate=dropout_rate, interpret=interpret)
    return over_mesh(run, q, k, v, attend_start, attend_end, rows)


def _run(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    attend_start: jax.Array,
    attend_end: jax.Array,
    rows: MaskRows | None,
    *,
    scale: float,
    rate: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    from glm_jax.kernels.interval_attention import interval_attention

    return interval_attention(
        q,
        k,
        v,
        attend_start,
        attend_end,
        scale=scale,
        dropout_rate=rate,
        mask_rows=rows,
        interpret=interpret,
    )
