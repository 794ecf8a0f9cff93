"""A fingerprint of a model's parameters: tells whether an adapter is loaded over its own base.

    {"final_norm/scale": ["float:9b1d0c..", "float:9b1d0c.."],
     "layers/attention/query/kernel": ["int4:77e0a2.."]}

A parameter has a digest that depends neither on the mesh, nor on whether its layers are stacked,
nor on the dtype that a copy is held in. Two bases are compared path by path where both have the
same kind of array. So an adapter that was trained over int4 can be loaded over the model itself,
since norms, biases and tables agree, and one of a fine-tuned relative is refused.

A digest is made of two sums per layer, modulo 2^32, over the bits of all values, each multiplied by
a number that depends on its index; a device computes it without a copy of the array.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantised import is_quantised
from glm_jax.models.trees import Leaves, Params, to_paths
from glm_jax.models.weights import is_weight
from glm_jax.sharding.rules import without_layer

# Path, without the number of a layer -> digests "kind:hex"; two that share one are of one array.
Fingerprint = dict[str, list[str]]

# Below the smallest normal number of float16 a copy in float16 has fewer digits.
_TINY = 2.0**-14


def fingerprint(params: Params) -> Fingerprint:
    """The fingerprint of parameters on any mesh, layers stacked or listed.

    Of an adapter its base counts, of a quantised matrix its integers. Other kinds of weights, and
    what is None in a part of the parameters (`split_params`), are left out.
    """
    layers: dict[str, dict[int, list[np.ndarray]]] = {}
    kinds: dict[str, str] = {}
    for path, leaf in _arrays(params).items():
        name = without_layer(path)
        is_stacked = name == path and path.startswith("layers/")
        number = int(path.split("/")[1]) if name != path else 0
        sums = [np.asarray(one) for one in _sums(leaf, is_stacked)]
        layers.setdefault(name, {})[number] = sums
        integers = jnp.issubdtype(leaf.dtype, jnp.integer)
        kinds[name] = str(leaf.dtype) if integers else "float"
    found = {}
    for name, parts in layers.items():
        in_order = zip(*(parts[number] for number in sorted(parts)), strict=True)
        joined = [np.concatenate(one) for one in in_order]
        digests = [hashlib.sha256(one.astype("<u4").tobytes()).hexdigest()[:16] for one in joined]
        found[name] = [f"{kinds[name]}:{digest}" for digest in digests]
    return dict(sorted(found.items()))


def _arrays(params: Params) -> Leaves:
    found: Leaves = {}
    for path, leaf in to_paths(params).items():
        while isinstance(leaf, LowRank):
            leaf = leaf.base
        if is_quantised(leaf):
            leaf = leaf.values
        if leaf is not None and not is_weight(leaf):
            found[path] = leaf
    return found


def _sums(array: jax.Array, is_stacked: bool) -> Sequence[jax.Array]:
    """uint32 [L, 2] or [1, 2] for each rounding: of floats two, of integers one."""
    sharding = array.sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.jit(_sums_of, static_argnums=1, out_shardings=sharding)(array, is_stacked)


def _sums_of(array: jax.Array, is_stacked: bool) -> list[jax.Array]:
    stacked = array if is_stacked else array[None]
    return [_sums_of_bits(bits) for bits in _bits(stacked)]


def _bits(array: jax.Array) -> list[jax.Array]:
    if jnp.issubdtype(array.dtype, jnp.integer):
        return [array.astype(jnp.int32).astype(jnp.uint32)]
    exact = array.astype(jnp.float32)
    exact = jnp.where(jnp.abs(exact) < _TINY, 0.0, exact)
    # float32 -> float16 -> bfloat16 rounds twice, so that a copy in float16 of what float16 does
    # not hold has another bfloat16. Two copies agree in one of the two.
    halves = exact.astype(jnp.float16).astype(jnp.float32)
    return [
        jax.lax.bitcast_convert_type(one.astype(jnp.bfloat16), jnp.uint16).astype(jnp.uint32)
        for one in (exact, halves)
    ]


def _sums_of_bits(bits: jax.Array) -> jax.Array:
    """uint32 [L, 2], of bits [L, ..]."""
    index = jnp.zeros(bits.shape[1:], jnp.uint32)
    stride = 1
    for axis in reversed(range(index.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, index.shape, axis)
        index, stride = index + along * jnp.uint32(stride % 2**32), stride * index.shape[axis]
    axes = tuple(range(1, bits.ndim))
    hashed = (index ^ (index >> 16)) * jnp.uint32(0x7FEB352D)
    hashed = (hashed ^ (hashed >> 15)) * jnp.uint32(0x846CA68B)
    sums = [
        jnp.sum(bits * (factor | 1), axis=axes, dtype=jnp.uint32)
        for factor in (hashed, hashed >> 7)
    ]
    return jnp.stack(sums, axis=-1)


def agree(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> bool:
    """Whether two fingerprints are of one model: no path differs, and one at least is common."""
    compared = [
        bool(set(one[path]) & set(other[path]))
        for path in one.keys() & other.keys()
        if _kind(one[path]) == _kind(other[path])
    ]
    return bool(compared) and all(compared)


def _kind(digests: Sequence[str]) -> str:
    return digests[0].partition(":")[0]


def shortened(found: Mapping[str, Sequence[str]]) -> str:
    """A fingerprint as 12 digits, for messages."""
    text = json.dumps({path: list(digests) for path, digests in found.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def common(found: Fingerprint, like: Mapping[str, PyTree]) -> Fingerprint:
    """The part of a fingerprint of the paths that another has."""
    return {path: digests for path, digests in found.items() if path in like}
