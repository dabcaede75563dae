"""BERT (Devlin et al., 2019) and RoBERTa (Liu et al., 2019) encoders, and how their Hugging Face checkpoints are read.

The two differ only in how positions are counted. Parameters, for layer i in segment form (`models.layers.layout`):

    embeddings/{word,position,token_type}/embedding, embeddings/norm/{scale,bias}
    layers/{i}/attention/{query,key,value,output}/{kernel,bias}, layers/{i}/attention_norm/{scale,bias}
    layers/{i}/mlp/{up,down}/{kernel,bias}, layers/{i}/mlp_norm/{scale,bias}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, norm
from jaxvalues.models.layers.attention import attention, preceded_by
from jaxvalues.models.layers.layout import Segments
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import activation, dot_rows, dropout
from jaxvalues.models.layers.stack import hidden_indices, init_layers, layer_keys, run_layers

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

    @property
    def word_size(self) -> int:
        """The width E of the word vectors."""
        return self.hidden_size

    def prompt_length(self, prompt: jax.Array | None, rows: int) -> int:
        """The length P of a prompt, 0 of none; raises `UserError` unless it is [P, E], or [B, P, E] of B `rows`."""
        if prompt is None:
            return 0
        width = self.word_size
        if prompt.ndim < 2 or prompt.shape not in ((prompt.shape[-2], width), (rows, prompt.shape[-2], width)):
            raise UserError(
                f"a prompt for this {self.model_type} model is [P, {width}] or [{rows}, P, {width}], not {prompt.shape}"
            )
        return prompt.shape[-2]

    def prefix_length(self, prefix: jax.Array | None) -> int:
        """The length P of a prefix, 0 of none; raises `UserError` unless it is [L, 2, P, N, H]."""
        if prefix is None:
            return 0
        heads = (self.num_attention_heads, self.hidden_size // self.num_attention_heads)
        if prefix.ndim != 5 or prefix.shape != (self.num_layers, 2, prefix.shape[2], *heads):
            raise UserError(
                f"a prefix for this {self.model_type} model is [{self.num_layers}, 2, P, {heads[0]}, {heads[1]}], "
                f"not {prefix.shape}"
            )
        return prefix.shape[2]

    def check_length(self, tokens: int, prompt: int = 0, prefix: int = 0) -> None:
        """Raise `UserError` where T `tokens` after a prompt and a prefix of these lengths are more than it reads."""
        if prefix + prompt + tokens > self.max_tokens:
            before = f" after a prompt of {prompt} and a prefix of {prefix}" if prompt or prefix else ""
            raise UserError(
                f"the input has {tokens} tokens{before}, but this {self.model_type} model reads at most "
                f"{self.max_tokens} in all"
            )


class BertEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised: ids [B, T] to [B, P + T, D].

    A `prompt` [P, D] or [B, P, D] stands before the words, in their place, with token type 0; `past` positions are
    taken by what comes before all of them. Raises `UserError` for an input longer than there are positions.
    """

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
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
        roberta = c.model_type in ROBERTA_LIKE
        word = self._table("word", c.vocab_size, zero_row=c.pad_token_id)
        position = self._table("position", c.max_position_embeddings, zero_row=c.pad_token_id if roberta else None)
        token_type = self._table("token_type", c.type_vocab_size)

        # An id outside the vocabulary gives NaN rather than some other word's vector.
        x = after_prompt(prompt, word.take(input_ids, axis=0, mode="fill"))
        types = None if token_type_ids is None else pad_left(token_type_ids, size, 0)
        x += token_type[0] if types is None else token_type.take(types, axis=0, mode="fill")
        if roberta:  # real tokens count from padding_idx + 1, padding stays at padding_idx
            real = pad_left(input_ids != c.pad_token_id, size, True).astype(jnp.int32)
            x += position.take(c.pad_token_id + (past + jnp.cumsum(real, axis=1)) * real, axis=0)
        else:
            x += position[past : past + size + tokens]
        x = LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="norm")(x)
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


def after_prompt(prompt: jax.Array | None, words: jax.Array) -> jax.Array:
    """Word vectors [B, T, E] after those of a prompt [P, E] or [B, P, E]: [B, P + T, E]."""
    if prompt is None:
        return words
    return jnp.concatenate([jnp.broadcast_to(prompt, (len(words), *prompt.shape[-2:])), words], axis=1)


def pad_left(x: jax.Array, size: int, value: bool | int) -> jax.Array:
    """`x` [B, T] after `size` columns of `value`: what holds of tokens, and of that which stands before them."""
    return jnp.pad(x, ((0, 0), (size, 0)), constant_values=value)


class BertLayer(nn.Module):
    """One post-norm transformer layer: [B, T, D] to [B, T, D], or to [B, 1, D] with `only`, the one position that is
    computed, which still attends to all of them.

    `mask` broadcasts to [B, 1, T, S + T], who sees whom; `before` [2, S, N, H] are the keys and values of a prefix.
    """

    config: BertConfig
    dtype: jnp.dtype = jnp.float32
    only: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        before: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        everywhere, x = x, take_only(x, self.only)
        a = BertAttention(c, self.dtype, name="attention")(x, everywhere, mask, rngs[0], before)
        x = self._norm("attention_norm")(x + dropout(a, c.hidden_dropout_prob, rngs[1]))
        m = BertMLP(c, self.dtype, name="mlp")(x)
        return self._norm("mlp_norm")(x + dropout(m, c.hidden_dropout_prob, rngs[2]))

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(self.config.layer_norm_eps, dtype=self.dtype, name=name)


def take_only(x: jax.Array, position: int | None) -> jax.Array:
    """`x` [B, T, D] at one position, [B, 1, D], or all of it where that is None."""
    return x if position is None else x[:, position : position + 1]


class BertAttention(nn.Module):
    """Multi-head attention with its four projections, from x [B, Q, D] to `everywhere` [B, T, D] and what is before it:
    [B, Q, D]. Arguments as in `BertLayer`."""

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        everywhere: jax.Array,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        before: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        heads = (c.num_attention_heads, c.hidden_size // c.num_attention_heads)  # N, H
        query, key, value = (
            _dense(c, c.hidden_size, self.dtype, name)(source).reshape(*source.shape[:2], *heads)
            for name, source in (("query", x), ("key", everywhere), ("value", everywhere))
        )
        key, value = preceded_by(before)((key, value))
        out = attention(
            query, key, value, mask=mask, dropout_rate=c.attention_probs_dropout_prob, dropout_rng=rng
        )  # [B, Q, N, H]
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

    Fields: `segments` (how the layers are grouped, see `models.layers.layout`), `dtype` (of the computation; the
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
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        deterministic: bool = True,
        layers: Sequence[int] = (-1,),
        first_only: bool = False,
        hidden: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Hidden states [B, T, D], one for each of `layers` (0 the embeddings, k after layer k, negative from the end).

        With `first_only` the highest of them is [B, 1, D], the first token alone, which saves most of the top layer's
        work.

        `input_ids` [B, T]; `attention_mask` [B, T], nonzero on real tokens. Unless `deterministic`, a "dropout" rng is
        needed. Nothing above the highest of `layers` is computed. With `hidden` [B, T, D], the hidden state with the
        index `stop_gradient_below` of an earlier call, nothing below that is computed either, and `input_ids` are not
        looked at.

        `prompt` [P, D] or [B, P, D] are vectors before all tokens, in the place of word vectors and with token type 0,
        as Hugging Face has `inputs_embeds`; `prefix` [L, 2, P, N, H] are keys and values before those of each layer, as
        it has `past_key_values` (P-tuning v2; Liu et al., 2022). Both are seen by every token and take the first
        positions, the prefix before the prompt; RoBERTa's padding takes none. Hidden states are the tokens' alone.

        Raises `UserError` for an input longer than the network reads, prompt and prefix included; for either in another
        shape; and for a prompt where nothing below the layers is differentiated.
        """
        c = self.config
        wanted = hidden_indices(layers, c.num_layers)
        check_prompt_enters(c, prompt, self.stop_gradient_below, hidden)
        past, size = c.prefix_length(prefix), c.prompt_length(prompt, len(attention_mask))
        rng = None if deterministic else self.make_rng("dropout")
        # The embeddings' key is one past the last layer's.
        keys = None if rng is None else layer_keys(rng, c.num_layers + 1)
        below = keys if self.dropout_below or not self.stop_gradient_below else None
        start = self.stop_gradient_below
        if hidden is None:
            start = 0
            hidden = BertEmbeddings(c, self.dtype, name="embeddings")(
                input_ids, token_type_ids, None if below is None else below[-1], prompt, past
            )

        layer = BertLayer(c, self.dtype, parent=None)
        params = self.param("layers", init_layers, layer, self.segments, jnp.zeros((1, 1, c.hidden_size)))
        mask = pad_left(attention_mask != 0, past + size, True)[:, None, None, :]  # [B, 1, 1, S + P + T]

        def apply(one_layer: BertLayer, leaves: Any, hidden: jax.Array, extra: Any) -> jax.Array:
            key, before = extra
            return one_layer.apply({"params": leaves}, hidden, mask, key, before)

        states = run_layers(
            partial(apply, layer),
            params,
            hidden,
            (keys, prefix),
            segments=self.segments,
            wanted=wanted,
            stop_gradient_below=self.stop_gradient_below,
            per_layer_below=(below, lax.stop_gradient(prefix)),
            start=start,
            remat=self.remat,
            apply_top=partial(apply, layer.clone(only=size)) if first_only else None,
        )
        return tokens_alone(states, size)


def check_prompt_enters(
    config: BertConfig, prompt: jax.Array | None, stop_gradient_below: int, hidden: jax.Array | None
) -> None:
    """Raise `UserError` for a prompt that nobody would see or that could not be learned."""
    if prompt is not None and (stop_gradient_below > 0 or hidden is not None):
        raise UserError(
            f"a prompt enters a {config.model_type} model below its layers, but nothing there is differentiated"
        )


def tokens_alone(states: Sequence[jax.Array], size: int) -> tuple[jax.Array, ...]:
    """Hidden states [B, P + T, D] without those of a prompt of `size` P: [B, T, D]; [B, 1, D] is of a token already."""
    return tuple(state[:, size:] if state.shape[1] > size else state for state in states)


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
