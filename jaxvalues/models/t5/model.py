"""T5 (Raffel et al., 2020), its version 1.1 (Shazeer, 2020, gated feed-forward) and Flan-T5 (Chung et al., 2022).

An encoder and a decoder, pre-norm, with relative positions alone. Parameters, for layer i in segment form:

    embeddings/word/embedding                                        shared by both sides
    {encoder,decoder}/relative_bias/embedding                        a bias per bucket of distances and head
    {encoder,decoder}/layers/{i}/attention/{query,key,value,output}/kernel, .../attention_norm/scale
    decoder/layers/{i}/cross_attention/..., decoder/layers/{i}/cross_attention_norm/scale
    {encoder,decoder}/layers/{i}/mlp/{up,down}/kernel, .../mlp/gate/kernel where gated, .../mlp_norm/scale
    {encoder,decoder}/norm/scale
    head/embedding                                                   the output matrix [V, D], unless it is tied

Two hooks add vectors that belong to no token. A *prompt* [P, D] is embeddings before the tokens, which take positions.
A *prefix* [L, 2, P, N, H] is keys and values of each layer. Those of self-attention take positions before the tokens
too, with the bias of that distance, like past keys and values in Hugging Face. Cross-attention has no distances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.errors import UserError
from jaxvalues.models.layers.embedding import Embedding, after_prompt
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.layout import Segments
from jaxvalues.models.layers.ops import word_logits
from jaxvalues.models.t5.config import T5Config
from jaxvalues.models.t5.stack import T5Cache, T5Stack, extend_mask


class Prompt(NamedTuple):
    """Extra embeddings [P, D] before the tokens of the encoder and of the decoder; None for none."""

    encoder: jax.Array | None = None
    decoder: jax.Array | None = None


class Prefix(NamedTuple):
    """Extra keys and values [L, 2, P, N, H] of self-attention in the encoder and in the decoder, and of
    cross-attention; None for none."""

    encoder: jax.Array | None = None
    decoder: jax.Array | None = None
    cross: jax.Array | None = None


class T5(nn.Module):
    """Tokens to logits over the vocabulary.

    `encode` and `decode` are separate, so that an input with many questions is encoded once. (`jax.vmap` over the
    decoder's inputs alone makes the keys of cross-attention once, too.)

    Fields: `segments` and `decoder_segments`, how the layers of each side are grouped (see `layers.layout`); `dtype` of
    the computation (parameters and the residual stream are float32); `remat`, whether activations are recomputed in the
    backward pass. Unless `deterministic`, a method needs a "dropout" rng.
    """

    config: T5Config
    segments: Segments
    decoder_segments: Segments
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        c = self.config
        init = normal(c.initializer_factor)
        self.embeddings = T5Embeddings((c.vocab_size, c.d_model), init)
        self.encoder = T5Stack(c, self.segments, False, self.dtype, self.remat)
        self.decoder = T5Stack(c, self.decoder_segments, True, self.dtype, self.remat)
        if not c.tie_word_embeddings:
            self.head = Embedding((c.vocab_size, c.d_model), init)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        decoder_input_ids: jax.Array | None = None,
        decoder_attention_mask: jax.Array | None = None,
        *,
        positions: jax.Array | None = None,
        words: jax.Array | None = None,
        prompt: Prompt | None = None,
        prefix: Prefix | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """`encode`, then `decode`; without `decoder_input_ids` the logits [B, 1, V] of the first output token."""
        prompt, prefix = prompt or Prompt(), prefix or Prefix()
        if decoder_input_ids is None:
            decoder_input_ids = jnp.full((len(input_ids), 1), self.config.decoder_start_token_id)
        hidden = self.encode(
            input_ids, attention_mask, prompt=prompt.encoder, prefix=prefix.encoder, deterministic=deterministic
        )
        return self.decode(
            decoder_input_ids,
            hidden,
            attention_mask,
            decoder_attention_mask,
            positions=positions,
            words=words,
            prompt=prompt.decoder,
            prefix=prefix.decoder,
            cross_prefix=prefix.cross,
            deterministic=deterministic,
        )

    def encode(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        *,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """The encoder's output [B, P + S, D] for `input_ids` [B, S] after a prompt of P; `attention_mask` [B, S] is
        nonzero on real tokens."""
        x = self._embed(input_ids, prompt)
        real = extend_mask(attention_mask, x.shape[1])
        return self.encoder(x, real, prefix=prefix, deterministic=deterministic)

    def decode(
        self,
        decoder_input_ids: jax.Array,
        hidden: jax.Array,
        attention_mask: jax.Array,
        decoder_attention_mask: jax.Array | None = None,
        *,
        positions: jax.Array | None = None,
        words: jax.Array | None = None,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        cross_prefix: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits [B, T, V], float32, of the word after each of `decoder_input_ids` [B, T], or [B, K, V] after those at
        `positions` [B, K].

        A vocabulary is large. With `words`, ids [A] or vectors [A, D] in the place of the output matrix's rows, only
        their logits are computed, [B, K, A] (see `models.layers.ops.word_logits`). `hidden` is the output of `encode`
        and `attention_mask` its argument. `decoder_attention_mask` [B, T] is nonzero on real tokens; None means all.
        """
        x = self._embed(decoder_input_ids, prompt)
        tokens = decoder_input_ids.shape[1]
        if decoder_attention_mask is None:
            decoder_attention_mask = jnp.ones_like(decoder_input_ids)
        x = self.decoder(
            x,
            extend_mask(decoder_attention_mask, x.shape[1]),
            hidden,
            extend_mask(attention_mask, hidden.shape[1]),
            prefix=prefix,
            cross_prefix=cross_prefix,
            deterministic=deterministic,
        )[:, -tokens:]
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], axis=1)
        return self._logits(x, words)

    def init_cache(
        self,
        hidden: jax.Array,
        attention_mask: jax.Array,
        length: int,
        *,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        cross_prefix: jax.Array | None = None,
    ) -> T5Cache:
        """The cache for decoding `length` tokens with `decode_step`; the arguments are those of `decode`."""
        extra = 0 if prompt is None else len(prompt)
        real = extend_mask(attention_mask, hidden.shape[1])
        cache = self.decoder.init_cache(hidden, real, extra + length, prefix=prefix, cross_prefix=cross_prefix)
        if extra:
            x = self._embed(jnp.zeros((len(hidden), 0), jnp.int32), prompt)
            _, cache = self.decoder.step(x, jnp.ones(x.shape[:2], bool), cache)
        return cache

    def decode_step(
        self, decoder_input_ids: jax.Array, cache: T5Cache, decoder_attention_mask: jax.Array | None = None
    ) -> tuple[jax.Array, T5Cache]:
        """The logits [B, T, V] of the word after each of the next T tokens, and the cache with these tokens in it.

        All shapes are fixed, so a loop of steps compiles once. Beyond the cache's length logits are NaN.
        """
        if decoder_attention_mask is None:
            decoder_attention_mask = jnp.ones_like(decoder_input_ids)
        x, cache = self.decoder.step(self._embed(decoder_input_ids), decoder_attention_mask != 0, cache)
        return self._logits(x), cache

    def _embed(self, ids: jax.Array, prompt: jax.Array | None = None) -> jax.Array:
        # An id outside the vocabulary gives NaN rather than some other word's vector.
        x = self.embeddings().take(ids, axis=0, mode="fill").astype(jnp.float32)
        if prompt is None:
            return x
        if prompt.ndim != 2 or prompt.shape[1] != x.shape[2]:
            raise UserError(f"the prompt has the shape {list(prompt.shape)}, expected [P, {x.shape[2]}]")
        return after_prompt(prompt, x)

    def _logits(self, x: jax.Array, words: jax.Array | None = None) -> jax.Array:
        c = self.config
        logits = word_logits(x, self.embeddings() if c.tie_word_embeddings else self.head(), words)
        return logits * c.d_model**-0.5 if c.scale_decoder_outputs else logits


class T5Embeddings(nn.Module):
    """The word embeddings [V, D], under the same path as in every network."""

    shape: tuple[int, int]
    init_fn: Any

    def setup(self) -> None:
        self.word = Embedding(self.shape, self.init_fn)

    def __call__(self) -> jax.Array:
        return self.word()
