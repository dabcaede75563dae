"""What BERT, RoBERTa and MPNet share: embeddings of words and positions, and a layer whose norms follow its sums.

Their parameters, for layer i in segment form (`models.layers.layout`):

    embeddings/{word,position,token_type}/embedding, embeddings/norm/{scale,bias}
    layers/{i}/attention/{query,key,value,output}/{kernel,bias}, layers/{i}/attention_norm/{scale,bias}
    layers/{i}/mlp/{up,down}/{kernel,bias}, layers/{i}/mlp_norm/{scale,bias}
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.models.layers.attention import attention, preceded_by
from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.dense import normal_dense
from jaxvalues.models.layers.embedding import Embedding, after_prompt, normal_with_zero_row
from jaxvalues.models.layers.masks import pad_left, select_positions
from jaxvalues.models.layers.mlp import MLP
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import dropout


@dataclasses.dataclass(frozen=True)
class PostNormConfig(TransformerConfig):
    """The config of these networks; names and defaults are Hugging Face's."""

    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    @property
    def token_types(self) -> int:
        """The rows of the table of token types; without any there is no table."""
        return 0

    @property
    def counts_real(self) -> bool:
        """Whether positions count real tokens from `pad_token_id` + 1, or else all from 0."""
        return True

    @property
    def max_tokens(self) -> int:
        """The longest input T that the position embeddings allow."""
        return self.max_position_embeddings - (self.pad_token_id + 1 if self.counts_real else 0)


class WordEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised: ids [B, T] to [B, P + T, D].

    A `prompt` [P, D] or [B, P, D] stands before the words and has token type 0. The first `past` positions are left
    free, for a prefix. Raises `UserError` for an input longer than there are positions.
    """

    config: PostNormConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        c = self.config
        self.word = self._table(c.vocab_size, zero_row=c.pad_token_id)
        self.position = self._table(c.max_position_embeddings, zero_row=c.pad_token_id if c.counts_real else None)
        if c.token_types:
            self.token_type = self._table(c.token_types)
        self.norm = LayerNorm(c.layer_norm_eps, dtype=self.dtype)

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array | None = None,
        rng: jax.Array | None = None,
        prompt: jax.Array | None = None,
        past: int = 0,
    ) -> jax.Array:
        c = self.config
        rows, tokens = input_ids.shape
        size = c.prompt_length(prompt, rows)
        c.check_length(tokens, size, past)
        position = self.position()

        # An id outside the vocabulary gives NaN rather than some other word's vector.
        x = after_prompt(prompt, self.word().take(input_ids, axis=0, mode="fill"))
        if c.token_types:
            token_type = self.token_type()
            types = None if token_type_ids is None else pad_left(token_type_ids, size, 0)
            x += token_type[0] if types is None else token_type.take(types, axis=0, mode="fill")
        if c.counts_real:  # padding stays at pad_token_id
            real = pad_left(input_ids != c.pad_token_id, size, True).astype(jnp.int32)
            x += position.take(c.pad_token_id + (past + jnp.cumsum(real, axis=1)) * real, axis=0)
        else:
            x += position[past : past + size + tokens]
        return dropout(self.norm(x), c.hidden_dropout_prob, rng)

    def _table(self, rows: int, zero_row: int | None = None) -> Embedding:
        init = normal_with_zero_row(self.config.initializer_range, zero_row)
        return Embedding((rows, self.config.hidden_size), init)


class PostNormAttention(nn.Module):
    """Multi-head attention with its four projections, from x [B, Q, D] to `states` [B, T, D] and a prefix: [B, Q, D].

    `mask`, `rng`, `prefix` and `bias` are those of `PostNormLayer`.
    """

    config: PostNormConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        states: jax.Array,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        *,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        query, key, value = (
            normal_dense(c, c.hidden_size, self.dtype, name)(source).reshape(
                *source.shape[:2], c.num_attention_heads, c.head_size
            )
            for name, source in (("query", x), ("key", states), ("value", states))
        )
        key, value = preceded_by(prefix)((key, value))
        out = attention(
            query, key, value, mask=mask, bias=bias, dropout_rate=c.attention_probs_dropout_prob, dropout_rng=rng
        )  # [B, Q, N, H]
        return normal_dense(c, c.hidden_size, self.dtype, "output")(out.reshape(x.shape))


class PostNormLayer(nn.Module):
    """One transformer layer: x [B, T, D] to the same.

    `mask` broadcasts to [B, 1, T, S + T] and is True where a query may attend to a key; `prefix` [2, S, N, H] are keys
    and values before those of x; `bias` [1, N, T, S + T] is added to the scores. With a `position` only the output
    there is computed, [B, 1, D], from all of x.
    """

    config: PostNormConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        position: int | None = None,
        *,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        states, x = x, select_positions(x, position)
        if bias is not None and position is not None:
            bias = bias[:, :, position : position + 1]
        a = PostNormAttention(c, self.dtype, name="attention")(x, states, mask, rngs[0], prefix, bias=bias)
        x = self._norm("attention_norm")(x + dropout(a, c.hidden_dropout_prob, rngs[1]))
        m = MLP(c, self.dtype, name="mlp")(x)
        return self._norm("mlp_norm")(x + dropout(m, c.hidden_dropout_prob, rngs[2]))

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(self.config.layer_norm_eps, dtype=self.dtype, name=name)
