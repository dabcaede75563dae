"""BERT (Devlin et al., 2019) and RoBERTa (Liu et al., 2019) encoders, and how their Hugging Face checkpoints are read.

The two differ only in how positions are counted. Parameters, for layer i in segment form (`jaxvalues.models.layout`):

    embeddings/{word,position,token_type}/embedding, embeddings/norm/{scale,bias}
    layers/{i}/attention/{query,key,value,output}/{kernel,bias}, layers/{i}/attention_norm/{scale,bias}
    layers/{i}/mlp/{up,down}/{kernel,bias}, layers/{i}/mlp_norm/{scale,bias}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.errors import UserError
from jaxvalues.models.attention import attention
from jaxvalues.models.conversion import Rule, Table, dense, norm
from jaxvalues.models.layout import Segments
from jaxvalues.models.ops import activation, dot_rows, dropout
from jaxvalues.models.stack import hidden_indices, init_layers, layer_keys, run_layers

ROBERTA_LIKE = ("roberta", "xlm-roberta")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes and rates of a BERT or RoBERTa encoder; names and defaults are Hugging Face's."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        model_type = config.get("model_type")
        defaults = {"pad_token_id": 1 if model_type in ROBERTA_LIKE else 0}
        given = {key: value for key, value in config.items() if value is not None}
        fields = {field.name: {**defaults, **given}.get(field.name, field.default) for field in dataclasses.fields(cls)}
        missing = [name for name, value in fields.items() if value is dataclasses.MISSING]
        if missing:
            raise UserError(f"config.json of the {model_type} model lacks {', '.join(missing)}")
        for key, supported in {
            "position_embedding_type": "absolute",
            "is_decoder": False,
            "add_cross_attention": False,
        }.items():
            if given.get(key, supported) != supported:
                raise UserError(f"{key} = {given[key]!r} is not supported for {model_type} models, only {supported!r}")
        activation(fields["hidden_act"])
        if fields["hidden_size"] % fields["num_attention_heads"]:
            raise UserError(
                f"hidden_size {fields['hidden_size']} is not a multiple of num_attention_heads "
                f"{fields['num_attention_heads']} in config.json"
            )
        return cls(**fields)

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def max_tokens(self) -> int:
        """The longest input T the position embeddings allow; RoBERTa counts from pad_token_id + 1."""
        offset = self.pad_token_id + 1 if self.model_type in ROBERTA_LIKE else 0
        return self.max_position_embeddings - offset


class BertEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised: ids [B, T] to [B, T, D]."""

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array | None = None, rng: jax.Array | None = None
    ) -> jax.Array:
        c = self.config
        tokens = input_ids.shape[1]
        if tokens > c.max_tokens:
            raise UserError(
                f"the input has {tokens} tokens, but this {c.model_type} model reads at most {c.max_tokens}"
            )
        roberta = c.model_type in ROBERTA_LIKE
        word = self._table("word", c.vocab_size, zero_row=c.pad_token_id)
        position = self._table("position", c.max_position_embeddings, zero_row=c.pad_token_id if roberta else None)
        token_type = self._table("token_type", c.type_vocab_size)

        # An id outside the vocabulary gives NaN rather than some other word's vector.
        x = word.take(input_ids, axis=0, mode="fill")
        x += token_type[0] if token_type_ids is None else token_type.take(token_type_ids, axis=0, mode="fill")
        if roberta:  # real tokens count from padding_idx + 1, padding stays at padding_idx
            real = (input_ids != c.pad_token_id).astype(jnp.int32)
            x += position.take(c.pad_token_id + jnp.cumsum(real, axis=1) * real, axis=0)
        else:
            x += position[:tokens]
        x = nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, use_fast_variance=False, name="norm")(x)
        return dropout(x, c.hidden_dropout_prob, rng)

    def _table(self, name: str, rows: int, zero_row: int | None = None) -> jax.Array:
        def init(rng: jax.Array, shape: tuple[int, int]) -> jax.Array:
            table = self.config.initializer_range * jax.random.normal(rng, shape)
            return table if zero_row is None else table.at[zero_row].set(0.0)

        return Embedding((rows, self.config.hidden_size), init, name=name)()


class Embedding(nn.Module):
    """A table of vectors, under the key "embedding"."""

    shape: tuple[int, int]
    init_fn: Any

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("embedding", self.init_fn, self.shape)


class BertLayer(nn.Module):
    """One post-norm transformer layer: [B, T, D] to [B, T, D], or to [B, 1, D] with `first_only`.

    `first_only` computes the first position alone, which still attends to all of them.
    """

    config: BertConfig
    dtype: jnp.dtype = jnp.float32
    first_only: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None) -> jax.Array:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        everywhere, x = x, x[:, :1] if self.first_only else x
        a = BertAttention(c, self.dtype, name="attention")(x, everywhere, mask, rngs[0])
        x = self._norm("attention_norm")(x + dropout(a, c.hidden_dropout_prob, rngs[1]))
        m = BertMLP(c, self.dtype, name="mlp")(x)
        return self._norm("mlp_norm")(x + dropout(m, c.hidden_dropout_prob, rngs[2]))

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.layer_norm_eps, dtype=self.dtype, use_fast_variance=False, name=name)


class BertAttention(nn.Module):
    """Multi-head attention with its four projections, from x [B, T, D] to `everywhere` [B, S, D]: [B, T, D]."""

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, everywhere: jax.Array, mask: jax.Array | None = None, rng: jax.Array | None = None
    ) -> jax.Array:
        c = self.config
        heads = (c.num_attention_heads, c.hidden_size // c.num_attention_heads)  # N, H
        query, key, value = (
            _dense(c, c.hidden_size, self.dtype, name)(source).reshape(*source.shape[:2], *heads)
            for name, source in (("query", x), ("key", everywhere), ("value", everywhere))
        )
        out = attention(
            query, key, value, mask=mask, dropout_rate=c.attention_probs_dropout_prob, dropout_rng=rng
        )  # [B, T, N, H]
        return _dense(c, c.hidden_size, self.dtype, "output")(out.reshape(x.shape))


class BertMLP(nn.Module):
    """The feed-forward block: [B, T, D] to [B, T, F] to [B, T, D]."""

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = activation(c.hidden_act)(_dense(c, c.intermediate_size, self.dtype, "up")(x))
        return _dense(c, c.hidden_size, self.dtype, "down")(x)


def _dense(config: BertConfig, features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
    init = nn.initializers.normal(config.initializer_range)
    return nn.Dense(features, dtype=dtype, kernel_init=init, dot_general=dot_rows, name=name)


class BertEncoder(nn.Module):
    """A BERT or RoBERTa encoder.

    Fields: `segments` (how the layers are grouped, see `jaxvalues.models.layout`), `dtype` (of the computation; the
    parameters are float32), `remat` (recompute activations in the backward pass), `stop_gradient_below` (k > 0:
    embeddings and layers below k are not differentiated), `dropout_below` (whether there is dropout in those).
    """

    config: BertConfig
    segments: Segments
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    stop_gradient_below: int = 0
    dropout_below: bool = True

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None = None,
        *,
        deterministic: bool = True,
        layers: Sequence[int] = (-1,),
        first_only: bool = False,
        hidden: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Hidden states [B, T, D], one for each of `layers` (0 the embeddings, k after layer k, negative from the end).

        With `first_only` the highest of them is [B, 1, D], the first position alone, which saves most of the top
        layer's work.

        `input_ids` [B, T]; `attention_mask` [B, T], nonzero on real tokens. Unless `deterministic`, a "dropout" rng is
        needed. Nothing above the highest of `layers` is computed. With `hidden` [B, T, D], the hidden state with the
        index `stop_gradient_below` of an earlier call, nothing below that is computed either, and `input_ids` are not
        looked at.
        """
        wanted = hidden_indices(layers, self.config.num_layers)
        rng = None if deterministic else self.make_rng("dropout")
        # The embeddings' key is one past the last layer's.
        keys = None if rng is None else layer_keys(rng, self.config.num_layers + 1)
        below = keys if self.dropout_below or not self.stop_gradient_below else None
        start = self.stop_gradient_below
        if hidden is None:
            start = 0
            hidden = BertEmbeddings(self.config, self.dtype, name="embeddings")(
                input_ids, token_type_ids, None if below is None else below[-1]
            )

        layer = BertLayer(self.config, self.dtype, parent=None)
        params = self.param("layers", init_layers, layer, self.segments, jnp.zeros((1, 1, self.config.hidden_size)))
        mask = attention_mask[:, None, None, :] != 0  # [B, 1, 1, T]
        top = layer.clone(first_only=True)
        return run_layers(
            lambda leaves, h, key: layer.apply({"params": leaves}, h, mask, key),
            params,
            hidden,
            keys,
            segments=self.segments,
            wanted=wanted,
            stop_gradient_below=self.stop_gradient_below,
            per_layer_below=below,
            start=start,
            remat=self.remat,
            apply_top=(lambda leaves, h, key: top.apply({"params": leaves}, h, mask, key)) if first_only else None,
        )


TABLE = Table(
    rules=(
        Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding"),
        Rule("embeddings.position_embeddings.weight", "embeddings/position/embedding"),
        Rule("embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *dense("encoder.layer.{i}.attention.self.query", "layers/{i}/attention/query"),
        *dense("encoder.layer.{i}.attention.self.key", "layers/{i}/attention/key"),
        *dense("encoder.layer.{i}.attention.self.value", "layers/{i}/attention/value"),
        *dense("encoder.layer.{i}.attention.output.dense", "layers/{i}/attention/output"),
        *norm("encoder.layer.{i}.attention.output.LayerNorm", "layers/{i}/attention_norm"),
        *dense("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
        *dense("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
        *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/mlp_norm"),
    ),
    prefixes=("bert.", "roberta.", ""),
    # poolers, task heads and buffers: not part of the encoder
    ignorable=(r"pooler\..*", r"cls\..*", r"lm_head\..*", r"classifier\..*", r"qa_outputs\..*", r"embeddings\.\w+_ids"),
    # the names of checkpoints converted from TensorFlow, bert-base-uncased among them
    aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
)
