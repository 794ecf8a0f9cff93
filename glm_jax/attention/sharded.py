"""Attention on a mesh: each device computes its own rows, heads and queries.

Kernels cannot be split by XLA, and chunks of a split row should not be. So they run inside a
`jax.shard_map` with the specs that stand here, once for every backend:

    q          [B, T, N, H]    P((data, fsdp), sequence, tensor)
    k, v       [B, S, K, H]    as q; gathered over sequence, their gradients scattered
    bounds     [B, T]          P((data, fsdp), sequence)             still indices into S
    out        [B, T, N, H]    as q

Query head n uses key head n // (N / K). Where tensor does not divide K, key heads are repeated, to
the smallest number that it divides; N = 8, K = 2, tensor = 4:

    device            0       1       2       3
    query heads       0 1     2 3     4 5     6 7
    key heads         0       0       1       1          [k0 k0 k1 k1]

An axis that does not divide its dimension is left out: its devices all compute the same, which is
said once.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from glm_jax.attention.call import Attend, Call
from glm_jax.attention.dropout import MaskRows
from glm_jax.sharding.mesh import BATCH_AXES, dividing


@dataclasses.dataclass(frozen=True)
class Split:
    """Which mesh axes split what.

    Attributes:
      axes: those that are not split by hand already, further out; with none there is nothing to do.
      batch, sequence, tensor: the axes that divide B, T and N.
      kv_copies: how often each key head is repeated.
      parts: devices along `batch`, `sequence` and `tensor`.
    """

    axes: frozenset[str] = frozenset()
    batch: tuple[str, ...] = ()
    sequence: str | None = None
    tensor: str | None = None
    kv_copies: int = 1
    parts: tuple[int, int, int] = (1, 1, 1)

    def local(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a device has of q [B, T, N, H]."""
        batch, length, heads, head_dim = shape
        return batch // self.parts[0], length // self.parts[1], heads // self.parts[2], head_dim


def split_for(q_shape: tuple[int, ...], num_kv_heads: int) -> Split:
    """How the mesh that is set (`jax.sharding.use_abstract_mesh`, `jax.set_mesh`) splits a call."""
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
        parts=(
            math.prod(mesh.shape[axis] for axis in rows),
            mesh.shape[sequence] if sequence else 1,
            over,
        ),
    )


def over_mesh(run: Attend, call: Call) -> tuple[jax.Array, jax.Array]:
    """Runs a call in parts, on each device its own.

    Rows of a dropout mask count places of the whole row, so the mask is the same on every mesh.
    """
    q, k, v, rows = call.q, call.k, call.v, call.mask_rows
    split = split_for(q.shape, k.shape[2])
    if not split.axes:
        return run(call)
    if split.kv_copies > 1:
        k, v = (jnp.repeat(x, split.kv_copies, axis=2) for x in (k, v))
    batch, sequence, tensor = split.batch or None, split.sequence, split.tensor
    # Keys of a cache need not be as many as queries, nor be divisible as they are.
    gathered = sequence if split.parts[1] > 1 and k.shape[1] % split.parts[1] == 0 else None
    queries, keys = P(batch, sequence, tensor), P(batch, gathered, tensor)
    bounds = P(batch, sequence)
    mask = rows and MaskRows._make((P(None, batch, tensor), P(sequence)))

    head_dim = q.shape[-1]

    def part(q, k, v, attend_start, attend_end, rows):
        if gathered:
            # By hand: left to XLA, every device sums whole gradients of k and v, not its own part.
            k, v = (jax.lax.all_gather(x, gathered, axis=1, tiled=True) for x in (k, v))
        q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
        bounds = {"attend_start": attend_start, "attend_end": attend_end}
        out, lse = run(call._replace(q=q, k=k, v=v, **bounds, mask_rows=rows))
        return _flat(out), lse

    out, lse = jax.shard_map(
        part,
        in_specs=(queries, keys, keys, bounds, bounds, mask),
        out_specs=(queries, queries),
        axis_names=set(split.axes),
        check_vma=False,
    )(_flat(q), _flat(k), _flat(v), call.attend_start, call.attend_end, rows)
    return out.reshape(q.shape), lse


def _flat(x: jax.Array) -> jax.Array:
    """[B, T, N, H] -> [B, T, N H]."""
    return x.reshape(*x.shape[:2], -1)
