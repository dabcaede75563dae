"""DeBERTa encoders: v1 (He et al., 2021), v2 and v3 (He et al., 2023).

A BERT whose attention also looks at distances (`jaxvalues.models.deberta.attention`), usually without absolute
positions. Parameters are BERT's, and where the config asks for them:

    embeddings/project/kernel                      word vectors narrower than the network
    embeddings/relative/embedding                  relative embeddings [2S, D], shared by all layers
    embeddings/relative_norm/{scale,bias}          v2 and v3 normalise them
    embeddings/conv/{kernel,bias}, embeddings/conv_norm/{scale,bias}         v2-xlarge and xxlarge
    layers/{i}/attention/relative_{key,query}/...  projections of the relative embeddings, unless they are shared
    layers/{i}/attention/in_proj/kernel, layers/{i}/attention/{query,value}/bias     v1, for query, key and value

Hugging Face's pooler is part of its classification head, not of the encoder.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxvalues.models.deberta.attention import DebertaAttention, relative_window
from jaxvalues.models.deberta.config import DebertaConfig
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.embedding import Embedding, after_prompt, normal_with_zero_row
from jaxvalues.models.layers.encoder import Encoder
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.masks import pad_left, select_positions
from jaxvalues.models.layers.mlp import MLP
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import activation, dropout
from jaxvalues.models.layers.transformer import Inputs, PerLayer


class Shared(NamedTuple):
    """What all layers share, for T tokens with those of a prompt; each is None if the config has no such part.

    `relative` [R, D], the rows of the relative embeddings that T tokens need; `local` [B, T, D], the features of the
    convolution, added after the first layer; `local_norm`, the parameters of the norm over that sum; `real` [B, T, 1],
    1 on real tokens.
    """

    relative: jax.Array | None
    local: jax.Array | None
    local_norm: dict[str, jax.Array] | None
    real: jax.Array


class DebertaEmbeddings(nn.Module):
    """From ids [B, T] to the hidden state that enters the layers, [B, P + T, D], and what all layers share.

    A `prompt` [P, E] or [B, P, E] stands before the words and has token type 0. `real` [B, P + T, 1] is 1 on real
    tokens and on the prompt.
    """

    config: DebertaConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        real: jax.Array,
        token_type_ids: jax.Array | None = None,
        rng: jax.Array | None = None,
        prompt: jax.Array | None = None,
    ) -> tuple[jax.Array, Shared]:
        c = self.config
        rows, tokens = input_ids.shape
        size = c.prompt_length(prompt, rows)
        c.check_length(tokens, size)
        rngs = (None,) * 2 if rng is None else jax.random.split(rng)
        # An id outside the vocabulary gives NaN rather than some other word's vector.
        x = self._table("word", c.vocab_size, zero_row=c.pad_token_id).take(input_ids, axis=0, mode="fill")
        x = after_prompt(prompt, x)
        if c.position_biased_input:
            x += self._table("position", c.max_position_embeddings)[: size + tokens]
        if c.type_vocab_size > 0:
            token_type = self._table("token_type", c.type_vocab_size)
            types = None if token_type_ids is None else pad_left(token_type_ids, size, 0)
            x += token_type[0] if types is None else token_type.take(types, axis=0, mode="fill")
        init = normal(c.initializer_range)
        if c.word_size != c.hidden_size:
            x = Dense(c.hidden_size, use_bias=False, dtype=self.dtype, kernel_init=init, name="project")(x)
        # The convolution looks at neighbours, so padding must be zero.
        x = dropout(_layer_norm(c, self.dtype, name="norm")(x) * real, c.hidden_dropout_prob, rngs[0])

        local = local_norm = None
        if c.conv_kernel_size > 0:
            conv = nn.Conv(
                c.hidden_size, (c.conv_kernel_size,),
                padding="SAME", feature_group_count=c.conv_groups, dtype=self.dtype, kernel_init=init, name="conv",
            )  # fmt: skip
            local = activation(c.conv_act)(dropout(conv(x) * real, c.hidden_dropout_prob, rngs[1]))
            new = _layer_norm(c, self.dtype, parent=None).init
            local_norm = self.param("conv_norm", lambda rng: new(rng, local)["params"])
        return x, Shared(self._relative(size + tokens), local, local_norm, real)

    def _relative(self, tokens: int) -> jax.Array | None:
        c = self.config
        if not c.relative_attention:
            return None
        window, _ = relative_window(tokens, c.position_buckets, c.relative_span)
        relative = self._table("relative", c.relative_rows, c.hidden_size)[window]
        if "layer_norm" in c.norm_rel_ebd.lower():
            relative = _layer_norm(c, self.dtype, name="relative_norm")(relative)
        return relative

    def _table(self, name: str, rows: int, width: int | None = None, zero_row: int | None = None) -> jax.Array:
        init = normal_with_zero_row(self.config.initializer_range, zero_row)
        return Embedding((rows, width or self.config.word_size), init, name=name)()


def _layer_norm(config: DebertaConfig, dtype: jnp.dtype, **where: Any) -> LayerNorm:
    return LayerNorm(config.layer_norm_eps, dtype=dtype, **where)


class DebertaLayer(nn.Module):
    """One post-norm transformer layer: x [B, T, D] to the same.

    `relative` [R, D] are the rows of the relative embeddings that `relative_window` names, None for attention without
    distances. `mask` broadcasts to [B, 1, T, S + T] and is True where a query may attend to a key; `prefix`
    [2, S, N, H] are keys and values at no distance. With a `position` only the output there is computed, [B, 1, D].
    """

    config: DebertaConfig
    dtype: jnp.dtype = jnp.float32
    form: str = "shift"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        relative: jax.Array | None = None,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        prefix: jax.Array | None = None,
        *,
        position: int | None = None,
    ) -> jax.Array:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        attention = DebertaAttention(c, self.dtype, self.form, name="attention")
        a = attention(x, relative, mask, rngs[0], prefix, position=position)
        x = select_positions(x, position)
        x = _layer_norm(c, self.dtype, name="attention_norm")(x + dropout(a, c.hidden_dropout_prob, rngs[1]))
        m = MLP(c, self.dtype, name="mlp")(x)
        return _layer_norm(c, self.dtype, name="mlp_norm")(x + dropout(m, c.hidden_dropout_prob, rngs[2]))


class DebertaEncoder(Encoder):
    """A DeBERTa encoder of any version; call and fields are those of `Encoder`, and `form`.

    `form` is how relative scores are laid out: "shift", or "gather" for comparison, which gives the same numbers.

    Hidden states are Hugging Face's on real tokens. On padding they are finite and mean nothing.

    A prompt goes the way of words: it is projected, normalised, convolved, and has its distances to the tokens, as
    Hugging Face's `inputs_embeds` have. A prefix has no position: every token attends to its keys by content alone, and
    the tokens' positions are those without it. (Hugging Face's DeBERTa takes no past keys.)
    """

    form: str = "shift"

    def make_embeddings(self) -> DebertaEmbeddings:
        return DebertaEmbeddings(self.config, self.dtype)

    def make_layer(self) -> DebertaLayer:
        return DebertaLayer(self.config, self.dtype, self.form, parent=None)

    def layer_example(self) -> tuple[Any, ...]:
        c = self.config
        window, _ = relative_window(1, c.position_buckets, c.relative_span)
        rows = jnp.zeros((window.stop - window.start, c.hidden_size)) if c.relative_attention else None
        return jnp.zeros((1, 1, c.hidden_size)), rows

    def embed(self, inputs: Inputs, rng: jax.Array | None) -> tuple[jax.Array, Shared]:
        ids = inputs.input_ids
        if inputs.hidden is not None:  # the relative embeddings alone are needed then, and so computed
            ids = jnp.zeros(inputs.hidden.shape[:2], jnp.int32)
        real = pad_left(inputs.attention_mask != 0, inputs.prompt_length, True)[..., None].astype(self.dtype)
        x, shared = self.embeddings(ids, real, inputs.token_type_ids, rng, inputs.prompt)
        return x if inputs.hidden is None else inputs.hidden, shared

    def layer(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: int | None = None
    ) -> jax.Array:
        shared = inputs.shared
        layer = self.make_layer()
        x = layer.apply({"params": params}, x, shared.relative, inputs.mask, each.rng, each.prefix, position=positions)
        if shared.local is None:
            return x
        return lax.cond(each.index == 0, partial(_add_local, self.config, shared, positions), lambda x: x, x)


def _add_local(config: DebertaConfig, shared: Shared, position: int | None, x: jax.Array) -> jax.Array:
    """The output of the first layer with the features of the convolution added, normalised."""
    local, real = (select_positions(each, position) for each in (shared.local, shared.real))
    norm = _layer_norm(config, real.dtype, parent=None)
    return norm.apply({"params": shared.local_norm}, x + local) * real
