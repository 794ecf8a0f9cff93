"""Rematerialisation: what a layer saves for the backward pass, and what is recomputed there.

The policies by name, from least memory to most. Every policy saves the layer's input, D values per
token. The table says what else each policy saves, in values per token, and what is recomputed:

    full            nothing                                        everything
    attention       attention_out, attention_lse    N H + N        all but the attention kernel
    qkv             query, key, value               (N + 2K) H     all but their projections
    qkv_attention   both
    dots            all matrix products             (2N + 2K) H + D + (1 or 2) F
    none            everything                                     nothing

Queries and keys are saved after rotation. The kernels "pallas_tpu" and "pallas_gpu" name their
results, so that they can be saved. Other backends do not, and recompute attention under "attention"
and "qkv_attention" too.
"""

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

from glm_jax.attention.tpu.tile_order import from_tiles, in_tiles, is_held_in_tiles

_ATTENTION = ("attention_out", "attention_lse")
_QKV = ("query", "key", "value")
_policies = jax.checkpoint_policies

POLICIES = {
    "full": _policies.nothing_saveable,
    "attention": _policies.save_only_these_names(*_ATTENTION),
    "qkv": _policies.save_only_these_names(*_QKV),
    "qkv_attention": _policies.save_only_these_names(*_QKV, *_ATTENTION),
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable,
        _policies.save_only_these_names(*_ATTENTION),
    ),
}


def rematerialised(run: Callable, remat: str, scanned: bool) -> Callable:
    """Wraps `run`, so that its backward pass recomputes what the policy does not save.

    Args:
      run: one layer.
      remat: name of the policy, or "none".
      scanned: whether `run` is the body of a scan. There XLA cannot merge the recomputation with
        the forward pass, so nothing must prevent it (`prevent_cse`).
    """
    if remat == "none":
        return run
    return jax.checkpoint(run, policy=POLICIES[remat], prevent_cse=not scanned)


def saved_as(name: str, x: jax.Array) -> jax.Array:
    """Names x [B, T, N, H] for a policy, in x's memory layout."""
    if is_held_in_tiles(x):
        return from_tiles(checkpoint_name(in_tiles(x), name))
    return checkpoint_name(x, name)
