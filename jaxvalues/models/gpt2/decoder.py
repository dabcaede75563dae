"""GPT-2 (Radford et al., 2019) of any size, without its output matrix, which is the word embeddings.

Parameters, for layer i in segment form (`models.layers.layout`):

    embeddings/{word,position}/embedding
    layers/{i}/attention_norm/{scale,bias}, layers/{i}/attention/{qkv,output}/{kernel,bias}
    layers/{i}/mlp_norm/{scale,bias}, layers/{i}/mlp/{up,down}/{kernel,bias}
    norm/{scale,bias}

`qkv` is one matrix [D, 3D], as in the files, so that an adapter of `c_attn` means the same here and there. The axis
`tensor` splits its columns as they lie; its output is then gathered, and heads are split from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.gpt2.config import GPT2Config
from jaxvalues.models.layers.attention import preceded_by
from jaxvalues.models.layers.branches import Branches, attend
from jaxvalues.models.layers.decoder import Decoder
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.embedding import Embedding, after_prompt
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.masks import select_positions
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import activation, dropout
from jaxvalues.models.layers.transformer import Inputs, PerLayer


class GPT2Embeddings(nn.Module):
    """Word vectors plus position vectors: ids [B, T] and `position_ids` [B, P + T] to [B, P + T, D].

    A `prompt` [P, D] or [B, P, D] stands before the words.
    """

    config: GPT2Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        position_ids: jax.Array,
        prompt: jax.Array | None = None,
        rng: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        init = normal(c.initializer_range)
        word = Embedding((c.vocab_size, c.hidden_size), init, name="word")()
        position = Embedding((c.max_position_embeddings, c.hidden_size), init, name="position")()
        # An id outside the vocabulary, or a position beyond the last, gives NaN rather than some other one's vector.
        x = after_prompt(prompt, word.take(input_ids, axis=0, mode="fill"))
        x += position.take(position_ids, axis=0, mode="fill")
        return dropout(x.astype(self.dtype), c.embd_pdrop, rng)


class GPT2Layer(nn.Module):
    """One pre-norm transformer layer: x [B, T, D] to the same, and its keys and values [2, B, T, N, H].

    `mask` [B, 1, T, S + T] is True where a query may attend to a key; `prefix` [2, P, N, H] are keys and values before
    those of every row, and each of `cached` [2, B, N, R, H] are those of R earlier positions. With `positions` [B, K]
    only the output there is computed, [B, K, D], from all of x. If rows end in `branches`, scores between these, which
    `mask` hides, are not computed.
    """

    config: GPT2Config
    dtype: jnp.dtype = jnp.float32
    branches: Branches | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        *,
        cached: Sequence[jax.Array] = (),
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        a, new = GPT2Attention(c, self.dtype, self.branches, name="attention")(
            _layer_norm(c, self.dtype, "attention_norm")(x), mask, rngs[0], prefix, positions, cached=cached
        )
        x = select_positions(x, positions) + dropout(a, c.hidden_dropout_prob, rngs[1])
        m = GPT2MLP(c, self.dtype, name="mlp")(_layer_norm(c, self.dtype, "mlp_norm")(x))
        return x + dropout(m, c.hidden_dropout_prob, rngs[2]), new


class GPT2Attention(nn.Module):
    """Multi-head attention with its two projections; arguments as in `GPT2Layer`."""

    config: GPT2Config
    dtype: jnp.dtype = jnp.float32
    branches: Branches | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        *,
        cached: Sequence[jax.Array] = (),
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        batch, tokens, width = x.shape
        heads = (c.num_attention_heads, c.head_size)
        # The gradient of a split is one array; that of three slices is the sum of three as large as all.
        qkv = jnp.split(_dense(c, 3 * width, self.dtype, "qkv")(x), 3, axis=-1)
        query, key, value = (part.reshape(batch, tokens, *heads) for part in qkv)
        new = jnp.stack([key, value])
        key, value = preceded_by(prefix)((key, value))
        if positions is not None:
            query = select_positions(query.reshape(x.shape), positions).reshape(*positions.shape, *heads)
            mask = jnp.take_along_axis(mask, positions[:, None, :, None], axis=2)
        out = attend(
            query,
            key,
            value,
            self.branches,
            mask=mask,
            cached=cached,
            scale=None if c.scale_attn_weights else 1.0,
            dropout_rate=c.attention_probs_dropout_prob,
            dropout_rng=rng,
        )
        return _dense(c, width, self.dtype, "output", _residual_std(c))(out.reshape(*out.shape[:2], width)), new


class GPT2MLP(nn.Module):
    """The feed-forward block: [B, T, D] to [B, T, F] to [B, T, D]."""

    config: GPT2Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = activation(c.hidden_act)(_dense(c, c.intermediate_size, self.dtype, "up")(x))
        return _dense(c, c.hidden_size, self.dtype, "down", _residual_std(c))(x)


def _dense(config: GPT2Config, features: int, dtype: jnp.dtype, name: str, std: float | None = None) -> Dense:
    init = normal(config.initializer_range if std is None else std)
    return Dense(features, dtype=dtype, kernel_init=init, name=name)


def _residual_std(config: GPT2Config) -> float:
    """The deviation of kernels that add to the residual stream, smaller in deeper networks (the paper, section 2.3)."""
    return config.initializer_range / (2 * config.num_layers) ** 0.5


def _layer_norm(config: GPT2Config, dtype: jnp.dtype, name: str | None = None) -> LayerNorm:
    return LayerNorm(config.layer_norm_eps, dtype=dtype, name=name)


class GPT2(Decoder):
    """A GPT-2 without its output matrix; call and fields are those of `Decoder`."""

    def setup(self) -> None:
        super().setup()
        self.norm = _layer_norm(self.config, self.dtype)

    def make_embeddings(self) -> GPT2Embeddings:
        return GPT2Embeddings(self.config, self.dtype)

    def make_layer(self, branches: Branches | None = None) -> GPT2Layer:
        return GPT2Layer(self.config, self.dtype, branches, parent=None)

    def embed(self, inputs: Inputs, rng: jax.Array | None) -> tuple[jax.Array, None]:
        if inputs.hidden is not None:
            return inputs.hidden, None
        return self.embeddings(inputs.input_ids, inputs.position_ids, inputs.prompt, rng), None

    def layer_and_cache(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        layer = self.make_layer(inputs.branches)
        return layer.apply({"params": params}, x, inputs.mask, each.rng, each.prefix, positions, cached=each.cached)

    def finish(self, x: jax.Array) -> jax.Array:
        return self.norm(x)
