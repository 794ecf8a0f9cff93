"""What the backward pass of a layer finds saved, and what it computes again.

Policies by name, from least memory to most. Beside the layer's input, B x T x D, each saves of a
layer, in numbers a token:

    full            nothing                                        all is computed again
    attention       attention_out, attention_lse    N H + N        all but attention's kernel
    qkv             query, key, value               (N + 2K) H     all but their projections
    qkv_attention   both
    dots            all products of matrices        (2N + 2K) H + D + (1 or 2) F
    none            everything

Queries and keys are saved rotated. The results of the kernels "pallas_tpu" and "pallas_gpu" are
saved by name; backends without such names compute attention again under "attention" and
"qkv_attention" too.
"""

from collections.abc import Callable

import jax

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
    """Lets the backward pass of `run` compute again what `ModelConfig.remat` does not save.

    Args:
      run: one layer.
      remat: name of the policy, or "none".
      scanned: `run` is the body of a scan: XLA cannot merge what is computed again with the forward
        pass there, and need not be kept from it.
    """
    if remat == "none":
        return run
    return jax.checkpoint(run, policy=POLICIES[remat], prevent_cse=not scanned)
