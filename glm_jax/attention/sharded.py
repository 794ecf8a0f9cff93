"""Attention on a mesh: each device computes its own rows, heads and queries.

XLA cannot partition a kernel, and should not partition chunks of a sharded row. So all backends
run inside a `jax.shard_map` with these specs:

    q          [B, T, N, H]    P((data, fsdp), sequence, tensor)
    k, v       [B, S, K, H]    as q; all-gathered over sequence, gradients reduce-scattered
    bounds     [B, T]          P((data, fsdp), sequence)             indices into all of S
    out        [B, T, N, H]    as q

Query head n uses key head n // (N / K). If tensor does not divide K, key heads are repeated, as few
times as make it divide; N = 8, K = 2, tensor = 4:

    device            0       1       2       3
    query heads       0 1     2 3     4 5     6 7
    key heads         0       0       1       1          [k0 k0 k1 k1]

A mesh axis that does not divide its dimension is left out: its devices all compute the same, which
is logged once.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from glm_jax.attention.call import Attend, Attended, Call
from glm_jax.attention.dropout import MaskRows
from glm_jax.sharding.mesh import BATCH_AXES, dividing


@dataclasses.dataclass(frozen=True)
class Split:
    """Which mesh axes shard which dimension.

    Attributes:
      axes: the mesh axes that no enclosing `shard_map` has made manual; none: nothing is sharded.
      batch, sequence, tensor: the axes over which B, T and N are sharded.
      kv_copies: how many times each key head is repeated.
      num_shards: devices along `batch`, `sequence` and `tensor`.
    """

    axes: frozenset[str] = frozenset()
    batch: tuple[str, ...] = ()
    sequence: str | None = None
    tensor: str | None = None
    kv_copies: int = 1
    num_shards: tuple[int, int, int] = (1, 1, 1)

    def local_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one device's shard of q [B, T, N, H]."""
        batch, length, heads, head_dim = shape
        return (
            batch // self.num_shards[0],
            length // self.num_shards[1],
            heads // self.num_shards[2],
            head_dim,
        )


def split_for(q_shape: tuple[int, ...], num_kv_heads: int) -> Split:
    """How the current mesh (`jax.sharding.use_abstract_mesh`, `jax.set_mesh`) shards a call."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return Split()
    axes = frozenset(
        axis
        for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind != AxisType.Manual
    )
    batch, length, num_heads = q_shape[:3]
    rows = dividing(BATCH_AXES, batch, mesh, "rows") or ()
    sequence = "sequence" if dividing("sequence", length, mesh, "slots") else None
    tensor = "tensor" if dividing("tensor", num_heads, mesh, "heads") else None
    over = mesh.shape[tensor] if tensor else 1
    return Split(
        axes=axes,
        batch=rows,
        sequence=sequence,
        tensor=tensor,
        kv_copies=math.lcm(num_kv_heads, over) // num_kv_heads,
        num_shards=(
            math.prod(mesh.shape[axis] for axis in rows),
            mesh.shape[sequence] if sequence else 1,
            over,
        ),
    )


def over_mesh(run: Attend, call: Call) -> Attended:
    """Runs a call sharded over the current mesh.

    The offsets of a dropout mask are those of the whole row, so the mask is the same on every mesh.
    """
    q, k, v, rows = call.q, call.k, call.v, call.mask_rows
    split = split_for(q.shape, k.shape[2])
    if not split.axes:
        return run(call)
    if split.kv_copies > 1:
        k, v = (jnp.repeat(x, split.kv_copies, axis=2) for x in (k, v))
    batch, sequence, tensor = split.batch or None, split.sequence, split.tensor
    # A cache may hold another number of keys than there are queries, and one that does not divide.
    gathered = (
        sequence if split.num_shards[1] > 1 and k.shape[1] % split.num_shards[1] == 0 else None
    )
    queries, keys = P(batch, sequence, tensor), P(batch, gathered, tensor)
    bounds = P(batch, sequence)
    mask = rows and MaskRows._make((P(None, batch, tensor), P(sequence)))

    head_dim = q.shape[-1]

    def on_device(q, k, v, attend_start, attend_end, rows):
        if gathered:
            # Explicit: XLA would all-reduce gradients of k and v, not reduce-scatter them.
            k, v = (jax.lax.all_gather(x, gathered, axis=1, tiled=True) for x in (k, v))
        q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
        bounds = {"attend_start": attend_start, "attend_end": attend_end}
        out, lse = run(call._replace(q=q, k=k, v=v, **bounds, mask_rows=rows))
        return _merge_heads(out), lse

    out, lse = jax.shard_map(
        on_device,
        in_specs=(queries, keys, keys, bounds, bounds, mask),
        out_specs=(queries, queries),
        axis_names=set(split.axes),
        check_vma=False,
    )(_merge_heads(q), _merge_heads(k), _merge_heads(v), call.attend_start, call.attend_end, rows)
    return out.reshape(q.shape), lse


def _merge_heads(x: jax.Array) -> jax.Array:
    """[B, T, N, H] -> [B, T, N H]."""
    return x.reshape(*x.shape[:2], -1)
