"""Attention over an interval of keys per query, and the backends that compute it.

Query i sees the keys `attend_start[i] <= j < attend_end[i]`; that one rule covers GLM's prefix
mask, causal and bidirectional models, packed documents and padding (`glm_jax.batch`). A query with
the empty interval gives exactly 0 and passes no gradient.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.attention.call import Attend, Call, make_call
from glm_jax.attention.gpu.interval_attention import refuses_gpu, run_gpu
from glm_jax.attention.gpu.tokamax import refuses_tokamax, run_tokamax
from glm_jax.attention.platform import target_platform
from glm_jax.attention.tpu.interval_attention import declines_few, refuses_tpu, run_tpu
from glm_jax.attention.xla import chunked, dense
from glm_jax.errors import say_once


def _never(call: Call) -> str | None:
    """Serves every call."""
    return None


@dataclasses.dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
      run: returns the output and the log-sum-exp of the scores, float32 [B, T, N].
      refuses: the reason why it cannot compute this call here, or None.
      declines: the reason why "auto" tries the next backend although this one could, or None.
      merges: whether the log-sum-exp is differentiable, as merging with a prefix needs.
      platforms: the platforms a kernel is written for; (): compiled by XLA for any.
    """

    run: Attend
    refuses: Callable[[Call], str | None]
    declines: Callable[[Call], str | None] = _never
    merges: bool = True
    platforms: tuple[str, ...] = ()


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    attend_start: Int[Array, "B T"],
    attend_end: Int[Array, "B T"],
    *,
    scale: float | None = None,
    backend: str = "auto",
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    prefix: tuple[Float[Array, "*rows P K H"], Float[Array, "*rows P K H"]] | None = None,
) -> Float[jax.Array, "B T N H"]:
    """Softmax attention of each query over its interval of keys.

        T = S = 4, prefix_bounds(2, 4)      attend_start  0 0 0 0      keys seen  0 1 . .
                                            attend_end    2 2 3 4                 0 1 . .
                                                                                  0 1 2 .
                                                                                  0 1 2 3

    Args:
      q: [B, T, N, H] queries.
      k: [B, S, K, H] keys; N is a multiple of K, and query head n uses head n // (N / K).
      v: [B, S, K, H] values.
      attend_start: [B, T] int32, first key each query sees, as an index into S.
      attend_end: [B, T] int32, one past the last key; at most S.
      scale: factor on the scores; None: 1 / sqrt(H).
      backend: a name in `BACKENDS`, or "auto" for the first that does not refuse.
      dropout_rate: share of the probabilities set to 0.
      dropout_key: random key; None: no dropout. The mask is the same in every backend and on every
        mesh.
      prefix: (k, v) that every query sees in addition to its interval, even an empty one (P-Tuning,
        arXiv:2110.07602); [B, P, K, H], or [P, K, H] for all rows; None: none.

    Returns:
      [B, T, N, H] in the dtype of q; softmax is float32 whatever the dtype.

    Raises:
      ValueError: N is not a multiple of K, the backend is unknown, or it refuses; with the reason
        of every backend.
    """
    num_heads, num_kv_heads = q.shape[2], k.shape[2]
    if num_heads % num_kv_heads:
        raise ValueError(
            f"query heads must be a multiple of key heads; got {num_heads} and {num_kv_heads}"
        )
    make = functools.partial(make_call, scale=scale, dropout_rate=dropout_rate)
    call = make(q, k, v, attend_start, attend_end, dropout_key=dropout_key)
    run = _choose(backend, call, merging=prefix is not None).run
    first = run(call)
    if prefix is None:
        return first[0]
    k, v = (jnp.broadcast_to(x, (q.shape[0], *x.shape[-3:])).astype(q.dtype) for x in prefix)
    start = jnp.zeros(q.shape[:2], jnp.int32)
    key = None if dropout_key is None else jax.random.fold_in(dropout_key, 1)
    seen_by_all = make(q, k, v, start, start + k.shape[1], dropout_key=key)
    return _merge(first, run(seen_by_all))


def _choose(backend: str, call: Call, merging: bool) -> Backend:
    """The backend of that name, or the first that neither refuses nor declines."""
    for name in BACKENDS if backend == "auto" else [backend]:
        chosen = BACKENDS.get(name)
        if chosen is None or _refusal(chosen, call, merging) is not None:
            continue
        if backend == name or chosen.declines(call) is None:
            if backend == "auto" and not chosen.platforms:
                _say_without_kernel(name, call, merging)
            return chosen
    said = {name: _refusal(b, call, merging) for name, b in BACKENDS.items()}
    raise ValueError(f"no attention backend for {backend!r}: {_reasons(said)}")


def _say_without_kernel(name: str, call: Call, merging: bool) -> None:
    """Logs once why "auto" takes no kernel on a platform that has some.

    Few queries (decoding) are no reason to log: kernels are not meant for them.
    """
    platform = target_platform()
    kernels = [(k, b) for k, b in BACKENDS.items() if platform in b.platforms]
    if any(b.declines(call) for _, b in kernels):
        return
    reasons = "; ".join(f"{k}: {_refusal(b, call, merging)}" for k, b in kernels)
    if reasons:
        say_once("attention", f"attention runs as {name!r}, slower than a kernel: {reasons}")


def _refusal(backend: Backend, call: Call, merging: bool) -> str | None:
    """Why a backend cannot compute a call, with a prefix (`merging`) or without."""
    reason = backend.refuses(call)
    return "takes no prefix" if reason is None and merging and not backend.merges else reason


def _reasons(said: dict[str, str | None]) -> str:
    """The reasons of all backends, for the error message."""
    return "; ".join(
        f"{name}: {reason or 'works here'}" for name, reason in {"auto": None, **said}.items()
    )


def _merge(first: tuple[jax.Array, jax.Array], prefix: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Attention over the keys of an interval and of a prefix, from the results for each.

        y = w y_interval + (1 - w) y_prefix      w = exp(lse_interval) / sum of both exp(lse)

    A query with the empty interval has w = 0. The two have different dropout masks.
    """
    (y, lse), (prefix_y, prefix_lse) = first, prefix
    weight = jax.nn.sigmoid(lse - prefix_lse)[..., None]
    return (weight * y + (1.0 - weight) * prefix_y).astype(y.dtype)


def _declines_short(call: Call) -> str | None:
    """Chunks cost a loop, which does not pay for short rows."""
    pairs = call.q.shape[1] * call.k.shape[1]
    return None if pairs > DENSE_PAIRS else f"{pairs} pairs per row are few"


# Pairs of a query and a key in a row up to which "auto" computes all at once.
DENSE_PAIRS = 2048 * 2048

# In the order in which "auto" tries them.
BACKENDS: dict[str, Backend] = {
    "pallas_tpu": Backend(run_tpu, refuses_tpu, declines_few, platforms=("tpu",)),
    "pallas_gpu": Backend(run_gpu, refuses_gpu, declines_few, platforms=("gpu", "cuda")),
    "tokamax": Backend(run_tokamax, refuses_tokamax, declines_few, False, ("gpu", "cuda")),
    "xla_chunked": Backend(chunked, _never, _declines_short),
    "xla": Backend(dense, _never),
}
