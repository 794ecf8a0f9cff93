"""The Transformer: embeddings, L layers, logits. Read this file first.

    tokens, positions, block_positions [B, T] --embed--> x [B, T, D]
    L times:  x += attention(norm(x))      over the keys [attend_start, attend_end) of each query
              x += mlp(norm(x))
    hidden = norm(x) [B, T, D]             logits = hidden @ word_table^T [B, T, V]

(GLM, arXiv:2103.10360, section 2.2; pre-norm and tied output matrix as in the published code.)
Dimensions: B batch, T query length, S key length, D model width, N heads, K key heads, H head size,
F feed-forward width, V vocabulary, L layers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from glm_jax.config import ModelConfig
from glm_jax.models.attention import attention
from glm_jax.models.dropout import dropout
from glm_jax.models.layers import (
    Embedding,
    LayerNorm,
    Linear,
    Mlp,
    fold_name,
    residual_stddev,
)
from glm_jax.models.positions import make_positions
from glm_jax.sharding import constrain_rows


class LayerCache(Protocol):
    """Keys and values that one layer has seen in earlier calls."""

    def append(self, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, Self]:
        """Stores [B, T, K, H] more; returns all keys and values [B, S, K, H], and the new cache."""


Cache = TypeVar("Cache", bound=LayerCache)


class SelfAttention(nnx.Module):
    """Queries, keys and values of x, attention over each query's interval, then back to D."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        head_dim = config.head_dim or config.embed_dim // config.num_heads
        width, heads = (config.embed_dim,), (config.num_heads, head_dim)
        self.query = Linear(width, heads, config, key=fold_name(key, "query"))
        self.key = Linear(width, heads, config, key=fold_name(key, "key"))
        self.value = Linear(width, heads, config, key=fold_name(key, "value"))
        self.out = Linear(
            heads, width, config, key=fold_name(key, "out"), stddev=residual_stddev(config)
        )
        self.config = config

    def __call__(self, x, attend_start, attend_end, *, dropout_key=None, cache=None):
        """[B, T, D] -> ([B, T, D], cache)."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        if cache is not None:
            k, v, cache = cache.append(k, v)
        y = attention(
            q,
            k,
            v,
            attend_start,
            attend_end,
            backend=self.config.attention_backend,
            dropout_rate=self.config.attention_dropout_rate,
            dropout_key=dropout_key,
        )
        return self.out(y), cache


class Layer(nnx.Module):
    """One layer: attention, then MLP, each behind a norm and added to its input."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.attention_norm = LayerNorm(config)
        self.attention = SelfAttention(config, key=fold_name(key, "attention"))
        self.mlp_norm = LayerNorm(config)
        self.mlp = Mlp(config, key=fold_name(key, "mlp"))
        self.dropout_rate = config.dropout_rate

    def __call__(self, x, attend_start, attend_end, *, dropout_key=None, cache=None):
        """[B, T, D] -> ([B, T, D], cache); the key is split over the three sites of dropout."""
        keys = [None] * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        y, cache = self.attention(
            self.attention_norm(x), attend_start, attend_end, dropout_key=keys[0], cache=cache
        )
        x = x + dropout(y, self.dropout_rate, keys[1])
        x = x + dropout(self.mlp(self.mlp_norm(x)), self.dropout_rate, keys[2])
        return constrain_rows(x), cache


class Transformer(nnx.Module):
    """The model of every GLM; `config` decides its shape.

    Attributes:
      layers: a list of `Layer`s, or one `Layer` whose parameters have a leading axis L
        (`ModelConfig.scan_layers`; `glm_jax.models.params` converts).
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        config = config.resolved()
        key = rngs.params()
        self.embedding = Embedding(config, key=fold_name(key, "embedding"))
        self.positions = make_positions(config, key=fold_name(key, "positions"))
        self.layers = make_layers(config, key=fold_name(key, "layers"))
        self.final_norm = LayerNorm(config)
        self.config = config

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        block_positions: jax.Array,
        attend_start: jax.Array,
        attend_end: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Runs whole rows.

        Args:
          tokens, positions, block_positions, attend_start, attend_end: [B, T] int32, as in `Batch`.
          dropout_key: decides every dropout; None: no dropout.

        Returns:
          [B, T, D] after the final norm, in compute_dtype.
        """
        keys: list = [None] * 2 if dropout_key is None else list(jax.random.split(dropout_key))
        x = self.embed(tokens, positions, block_positions)
        x = dropout(x, self.config.dropout_rate, keys[0])
        x = self._run_layers(x, attend_start, attend_end, keys[1])
        return self.final_norm(x)

    def extend(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        block_positions: jax.Array,
        attend_start: jax.Array,
        attend_end: jax.Array,
        caches: Sequence[Cache],
    ) -> tuple[jax.Array, list[Cache]]:
        """Runs T more places of rows whose earlier keys and values lie in `caches`.

        Args:
          tokens, positions, block_positions: [B, T] int32.
          attend_start, attend_end: [B, T] int32, intervals of the cache's places.
          caches: one a layer; the layers must be listed.

        Returns:
          ([B, T, D] after the final norm, the caches with the new places).
        """
        if isinstance(self.layers, Layer):
            raise ValueError(
                "a cache needs listed layers; see glm_jax.models.params.unstack_layers"
            )
        x = self.embed(tokens, positions, block_positions)
        new_caches = []
        for layer, cache in zip(self.layers, caches, strict=True):
            x, cache = layer(x, attend_start, attend_end, cache=cache)
            new_caches.append(cache)
        return self.final_norm(x), new_caches

    def embed(
        self, tokens: jax.Array, positions: jax.Array, block_positions: jax.Array
    ) -> jax.Array:
        """[B, T] ids -> [B, T, D] word and position vectors, added up."""
        return constrain_rows(self.embedding(tokens) + self.positions(positions, block_positions))

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Scores of every next id, [..., D] -> float32 [..., V]."""
        return self.embedding.logits(hidden)

    def _run_layers(
        self,
        x: jax.Array,
        attend_start: jax.Array,
        attend_end: jax.Array,
        dropout_key: jax.Array | None,
    ) -> jax.Array:
        layers = self.layers if isinstance(self.layers, nnx.List) else [self.layers]
        splits = [nnx.split(layer) for layer in layers]
        graph = splits[0][0]

        def run(x, state_and_key):
            state, key = state_and_key
            return nnx.merge(graph, state)(x, attend_start, attend_end, dropout_key=key)

        run = rematerialised(run, self.config.remat)
        keys = layer_keys(dropout_key, self.config.num_layers)
        if isinstance(self.layers, Layer):
            return jax.lax.scan(run, x, (splits[0][1], keys))[0]
        for index, (_, state) in enumerate(splits):
            x, _ = run(x, (state, None if keys is None else keys[index]))
        return x


def make_layers(config: ModelConfig, *, key: jax.Array) -> Layer | nnx.List:
    """L layers, stacked or listed; layer i draws from the key folded with i either way."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(config.num_layers))
    if uses_scan(config):
        # A loop compiles its random draws once; under vmap they take twice as long to compile.
        states = jax.lax.map(lambda key: nnx.state(Layer(config, key=key)), keys)
        return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: Layer(config, key=key))), states)
    return nnx.List([Layer(config, key=keys[index]) for index in range(config.num_layers)])


def uses_scan(config: ModelConfig) -> bool:
    """Whether layers are stacked: `config.scan_layers`, by default everywhere but on CPU."""
    return jax.default_backend() != "cpu" if config.scan_layers is None else config.scan_layers


def layer_keys(key: jax.Array | None, num_layers: int) -> jax.Array | None:
    """One dropout key a layer [L], folded from its index."""
    if key is None:
        return None
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_layers))


def rematerialised(run: Callable, remat: str) -> Callable:
    """Lets the backward pass recompute what `ModelConfig.remat` says."""
    if remat == "none":
        return run
    policies = jax.checkpoint_policies
    policy = {"full": policies.nothing_saveable, "dots": policies.dots_with_no_batch_dims_saveable}
    return jax.checkpoint(run, policy=policy[remat])
