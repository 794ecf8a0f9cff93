"""The Transformer: embeddings, L layers, logits. Read this file first.

    tokens, positions, block_positions [B, T] --embed--> x [B, T, D]
    L times:  x += attention(norm(x))      over the keys [attend_start, attend_end) of each query
              x += mlp(norm(x))
    hidden = norm(x) [B, T, D]             logits = hidden @ token_embedding^T [B, T, V]

This is GLM (arXiv:2103.10360, section 2.2; pre-norm and tied LM head as in the published code).
Variants differ in their norm, feed-forward, position encoding and LM head (`ModelConfig`). Each
choice is a module of its own, so that every variant follows the lines above.
Dimensions: B batch, T query length, S key length, D model width, N heads, K key heads, H head
dimension, F feed-forward width, V vocabulary, L layers, P keys of a trained prefix.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.attention.dispatch import attention
from glm_jax.attention.dropout import dropout
from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.models.layers import (
    Cache,
    Embedding,
    Identity,
    Linear,
    make_mlp,
    make_norm,
    residual_stddev,
)
from glm_jax.models.positions import Rotation, make_positions, rotate
from glm_jax.models.prefix import KeyValue, Prefix, dropped
from glm_jax.models.remat import saved_as
from glm_jax.models.seeds import fold_name
from glm_jax.models.stack import last_layer, layer_keys, make_layers, of_layer, run_layers
from glm_jax.models.value_head import NAME, ValueHead
from glm_jax.models.weights import exchanged
from glm_jax.sharding.mesh import constrain_rows


class SelfAttention(nnx.Module):
    """Projects x to queries, keys and values, attends over each query's interval, projects to D."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        width, head_dim = (config.embed_dim,), config.head_dim
        heads, kv_heads = (config.num_heads, head_dim), (config.num_kv_heads, head_dim)

        def linear(name, inputs, outputs, **options) -> Linear:
            return Linear(inputs, outputs, config, key=fold_name(key, name), **options)

        inner, outer = config.biases in ("all", "qkv"), config.biases == "all"
        self.query = linear("query", width, heads, use_bias=inner)
        self.key = linear("key", width, kv_heads, use_bias=inner)
        self.value = linear("value", width, kv_heads, use_bias=inner)
        self.out = linear("out", heads, width, use_bias=outer, stddev=residual_stddev(config))
        self.config = config

    def __call__(
        self,
        x: Float[jax.Array, "B T D"],
        attend_start: Int[Array, "B T"],
        attend_end: Int[Array, "B T"],
        rotation: Rotation | None,
        *,
        dropout_key: jax.Array | None = None,
        cache: Cache | None = None,
        prefix: KeyValue | None = None,
    ) -> tuple[Float[jax.Array, "B T N H"], Cache | None]:
        """[B, T, D] -> (output per head [B, T, N, H], cache); `out` projects it to [B, T, D].

        The prefix has [P, K, H] each.
        """
        q, k, v = self.query(x), self.key(x), self.value(x)
        # The cache holds rotated keys: each key is rotated once, by its own position.
        q = saved_as("query", rotate(q, rotation))
        k = saved_as("key", rotate(k, rotation))
        v = saved_as("value", v)
        if cache is not None:
            k, v, cache = cache.append(k, v)
        y = attention(
            q,
            k,
            v,
            attend_start,
            attend_end,
            backend=self.config.compute.attention_backend,
            dropout_rate=self.config.attention_dropout_rate,
            dropout_key=dropout_key,
            prefix=dropped(prefix, len(q), self.config.prefix_dropout_rate, dropout_key),
        )
        return y, cache


class Layer(nnx.Module):
    """One layer: attention, then MLP, each on its normalised input and added to the residual.

    With `residual="sandwich"` the output of each passes another norm before it is added. With
    "scaled_norm" what it is added to is not its input, but the normalised input times alpha:

        a = norm(x), y = alpha a + attention(a);  m = norm(y), result = alpha m + mlp(m)
    """

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        sandwich = config.residual == "sandwich"
        self.attention_norm = make_norm(config)
        self.attention = SelfAttention(config, key=fold_name(key, "attention"))
        self.attention_out_norm = make_norm(config) if sandwich else Identity()
        self.mlp_norm = make_norm(config)
        self.mlp = make_mlp(config, key=fold_name(key, "mlp"))
        self.mlp_out_norm = make_norm(config) if sandwich else Identity()
        self.dropout_rate, self.alpha = config.dropout_rate, config.residual_alpha

    def __call__(
        self,
        x: Float[jax.Array, "B T D"],
        attend_start: Int[Array, "B T"],
        attend_end: Int[Array, "B T"],
        rotation: Rotation | None,
        *,
        dropout_key: jax.Array | None = None,
        cache: Cache | None = None,
        prefix: KeyValue | None = None,
    ) -> tuple[Float[jax.Array, "B T D"], Cache | None]:
        """[B, T, D] -> ([B, T, D], cache); the key is split among the three uses of dropout."""
        keys = [None] * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        y, cache = self.attention(
            self.attention_norm(x),
            attend_start,
            attend_end,
            rotation,
            dropout_key=keys[0],
            cache=cache,
            prefix=prefix,
        )
        return constrain_rows(self.finish(x, self.attention.out(y), keys[1], keys[2])), cache

    def finish(
        self,
        x: Float[jax.Array, "*slots D"],
        y: Float[jax.Array, "*slots D"],
        attention_key: jax.Array | None = None,
        mlp_key: jax.Array | None = None,
    ) -> Float[jax.Array, "*slots D"]:
        """The rest, slot by slot: x [.., D] and what attention made of it, y [.., D] -> [.., D]."""
        x = self._carried(x, self.attention_norm)
        x = x + dropout(self.attention_out_norm(y), self.dropout_rate, attention_key)
        y = self.mlp(self.mlp_norm(x))
        x = self._carried(x, self.mlp_norm)
        return x + dropout(self.mlp_out_norm(y), self.dropout_rate, mlp_key)

    def _carried(self, x: jax.Array, norm: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """What the residual stream carries past a sub-layer with the input x and this norm."""
        return x if self.alpha is None else self.alpha * norm(x)


class Transformer(nnx.Module):
    """The model of every GLM; `config` decides its shape.

    Attributes:
      layers: a list of `Layer`s, or one `Layer` whose parameters have a leading axis L
        (`ComputeConfig.scan_layers`; `glm_jax.models.params` converts).
    """

    def __init__(self, config: ResolvedModel, *, rngs: nnx.Rngs):
        key = rngs.params()
        self.embedding = Embedding(config, key=fold_name(key, "embedding"))
        self.positions = make_positions(config, key=fold_name(key, "positions"))
        self.layers = make_layers(
            lambda key: Layer(config, key=key),
            config.num_layers,
            config.compute,
            key=fold_name(key, "layers"),
        )
        self.final_norm = make_norm(config)
        tied = config.tied_embeddings
        self.output = None if tied else Embedding(config, key=fold_name(key, "output"))
        has_prefix = config.prefix_length > 0
        self.prefix = Prefix(config, key=fold_name(key, "prefix")) if has_prefix else None
        self.value_head = ValueHead(config, key=fold_name(key, NAME)) if config.value_head else None
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
        attend_start: Int[Array, "B T"],
        attend_end: Int[Array, "B T"],
        *,
        dropout_key: jax.Array | None = None,
    ) -> Float[jax.Array, "B T D"]:
        """Runs whole rows.

        Args:
          tokens, positions, block_positions, attend_start, attend_end: [B, T] int32, as in `Batch`.
          dropout_key: key of all dropout; None: no dropout.

        Returns:
          [B, T, D] after the final norm, in `compute.dtype`.
        """
        keys: list = [None] * 2 if dropout_key is None else list(jax.random.split(dropout_key))
        x = self.embed(tokens, positions, block_positions)
        x = dropout(x, self.config.dropout_rate, keys[0])
        rotation = self.positions.rotation(positions, block_positions)
        run = functools.partial(self._run_layers, dropout_key=keys[1])
        return self.final_norm(run(x, attend_start, attend_end, rotation, self._prefixes()))

    def extend(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
        attend_start: Int[Array, "B T"],
        attend_end: Int[Array, "B T"],
        caches: Sequence[Cache],
    ) -> tuple[Float[jax.Array, "B T D"], list[Cache]]:
        """Runs T more slots of rows whose earlier keys and values are in `caches`.

        Args:
          tokens, positions, block_positions: [B, T] int32.
          attend_start, attend_end: [B, T] int32, intervals of slots of the cache.
          caches: one per layer; the layers must be listed.

        Returns:
          ([B, T, D] after the final norm, the caches with the new slots).

        Raises:
          ValueError: the layers are stacked.
        """
        if isinstance(self.layers, Layer):
            raise ValueError(
                "a cache needs listed layers; see glm_jax.models.params.unstack_layers"
            )
        x = self.embed(tokens, positions, block_positions)
        rotation = self.positions.rotation(positions, block_positions)
        new_caches, prefixes = [], self._prefixes()
        for index, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            prefix = of_layer(prefixes, index)
            x, new = layer(x, attend_start, attend_end, rotation, cache=cache, prefix=prefix)
            assert new is not None  # where one is given
            new_caches.append(new)
        return self.final_norm(x), new_caches

    def unfinished(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
        attend_start: Int[Array, "B T"],
        attend_end: Int[Array, "B T"],
    ) -> Float[jax.Array, "B T D_NH"]:
        """Runs whole rows up to the attention of the last layer, without dropout.

        The rest of the last layer computes each slot alone. `finisher()` does it, for any choice of
        slots, so that a loss need not compute it where nothing is predicted.

        Returns:
          [B, T, D + N H]: the input of the last layer, and the outputs of its attention heads.

        Raises:
          ValueError: the layers are stacked.
        """
        x = self.embed(tokens, positions, block_positions)
        rotation = self.positions.rotation(positions, block_positions)
        last, prefixes = self.config.num_layers - 1, self._prefixes()
        x = self._run_layers(x, attend_start, attend_end, rotation, prefixes, first=last)
        prefix = of_layer(prefixes, last)
        layer, bounds = last_layer(self.layers, self.config.compute), (attend_start, attend_end)
        y, _ = layer.attention(layer.attention_norm(x), *bounds, rotation, prefix=prefix)
        return jnp.concatenate([x, y.reshape(*x.shape[:-1], -1)], axis=-1)

    def finisher(self) -> Callable[[jax.Array], jax.Array]:
        """The function from slots of `unfinished` to logits: [.., D + N H] -> float32 [.., V]."""
        config = self.config
        last, score = last_layer(self.layers, config.compute), self.scorer()

        def logits(unfinished: jax.Array) -> jax.Array:
            x, y = jnp.split(unfinished, [config.embed_dim], axis=-1)
            y = last.attention.out(y.reshape(*y.shape[:-1], config.num_heads, -1))
            return score(self.final_norm(last.finish(x, y)))

        return logits

    def embed(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        block_positions: Int[Array, "B T"],
    ) -> Float[jax.Array, "B T D"]:
        """[B, T] ids -> [B, T, D] token embeddings, plus position embeddings if there are any."""
        return exchanged(self.positions.add(self.embedding(tokens), positions, block_positions))

    def logits(self, hidden: Float[jax.Array, "*slots D"]) -> Float[jax.Array, "*slots V"]:
        """The LM head: [..., D] -> float32 logits [..., V] of the next token."""
        return self.scorer()(hidden)

    def scorer(self) -> Callable[[jax.Array], jax.Array]:
        """`logits` as a function that casts and gathers the LM head once for several calls."""
        table = self.embedding if self.output is None else self.output
        return table.scorer()

    def values(self, hidden: Float[jax.Array, "*slots D"]) -> Float[jax.Array, "*slots"]:
        """The value head: [..., D] -> float32 [...].

        Raises:
          UserError: the model has none.
        """
        if self.value_head is None:
            raise UserError("the model has no value head; set model.value_head=True")
        return self.value_head(hidden)

    def _prefixes(self) -> KeyValue | None:
        """The keys and values of the prefix, [L, P, K, H] each; None without one."""
        return None if self.prefix is None else self.prefix()

    def _run_layers(
        self,
        x: jax.Array,
        attend_start: Array,
        attend_end: Array,
        rotation: Rotation | None,
        prefixes: KeyValue | None,
        dropout_key: jax.Array | None = None,
        first: int | None = None,
    ) -> jax.Array:
        """Runs all layers; `first`: only the first so many of listed layers."""

        def call(layer, x, key, prefix):
            return layer(x, attend_start, attend_end, rotation, dropout_key=key, prefix=prefix)

        each = layer_keys(dropout_key, self.config.num_layers), prefixes
        return run_layers(self.layers, call, x, each, self.config.compute, first)
