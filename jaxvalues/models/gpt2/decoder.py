"""GPT-2 (Radford et al., 2019) of any size, and how its Hugging Face checkpoints are read.

Parameters, for layer i in segment form (`models.layers.layout`); the output matrix is the word embeddings:

    embeddings/{word,position}/embedding
    layers/{i}/attention_norm/{scale,bias}, layers/{i}/attention/{qkv,output}/{kernel,bias}
    layers/{i}/mlp_norm/{scale,bias}, layers/{i}/mlp/{up,down}/{kernel,bias}
    norm/{scale,bias}

`qkv` is one matrix [D, 3D], as in the files, so that an adapter of `c_attn` means here what it means there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.bert.encoder import BertConfig, Embedding, after_prompt, check_prompt_enters
from jaxvalues.models.checkpoints.conversion import Rule, Table, norm
from jaxvalues.models.layers.attention import attention
from jaxvalues.models.layers.branches import Branches, branched_attention
from jaxvalues.models.layers.cache import Cache
from jaxvalues.models.layers.layout import Segments
from jaxvalues.models.layers.masks import count_positions, visible
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import activation, dropout
from jaxvalues.models.layers.stack import hidden_indices, init_layers, layer_keys, run_layers

# GPT-2's names of what the other networks call otherwise; Hugging Face reads both.
_NAMES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "activation_function": "hidden_act",
    "resid_pdrop": "hidden_dropout_prob",
    "attn_pdrop": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
}


@dataclasses.dataclass(frozen=True)
class GPT2Config(BertConfig):
    """The sizes and rates of a GPT-2, under the names of `BertConfig`; defaults are Hugging Face's."""

    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 1024
    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-5
    scale_attn_weights: bool = True  # scores are divided by sqrt(H)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> GPT2Config:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        given = {_NAMES.get(key, key): value for key, value in config.items() if value is not None}
        if "hidden_size" in given:
            given.setdefault("intermediate_size", 4 * given["hidden_size"])
        rate = given.get("hidden_dropout_prob", cls.hidden_dropout_prob)
        for key, supported in {
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "embd_pdrop": rate,  # one rate for embeddings and layers
        }.items():
            if given.get(key, supported) != supported:
                raise UserError(f"{key} = {given[key]!r} is not supported for gpt2 models, only {supported!r}")
        return super().from_hf(given)


class GPT2Embeddings(nn.Module):
    """Word vectors plus position vectors: ids [B, T] and `position_ids` [B, P + T] to [B, P + T, D].

    A `prompt` [P, D] or [B, P, D] stands before the words, in their place.
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
        init = nn.initializers.normal(c.initializer_range)
        word = Embedding((c.vocab_size, c.hidden_size), init, name="word")()
        position = Embedding((c.max_position_embeddings, c.hidden_size), init, name="position")()
        # An id outside the vocabulary, or a position beyond the last, gives NaN rather than some other one's vector.
        x = after_prompt(prompt, word.take(input_ids, axis=0, mode="fill"))
        x += position.take(position_ids, axis=0, mode="fill")
        return dropout(x.astype(self.dtype), c.hidden_dropout_prob, rng)


class GPT2Layer(nn.Module):
    """One pre-norm transformer layer: [B, T, D] to the same, and its keys and values [2, B, T, N, H].

    `sees` [B, 1, T, S + T] says who sees whom, `before` [2, B or 1, S, N, H] are keys and values of S earlier
    positions. With `at` [B, K] only the positions it names are computed, [B, K, D], which still attend to all. Where
    rows end in `branches`, scores between them, which `sees` hides, are not computed.
    """

    config: GPT2Config
    dtype: jnp.dtype = jnp.float32
    branches: Branches | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        sees: jax.Array | None = None,
        rng: jax.Array | None = None,
        before: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        a, new = GPT2Attention(c, self.dtype, self.branches, name="attention")(
            _layer_norm(c, self.dtype, "attention_norm")(x), sees, rngs[0], before, at
        )
        x = (x if at is None else _take(x, at)) + dropout(a, c.hidden_dropout_prob, rngs[1])
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
        sees: jax.Array | None = None,
        rng: jax.Array | None = None,
        before: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        c = self.config
        batch, tokens, width = x.shape
        heads = (c.num_attention_heads, width // c.num_attention_heads)  # N, H
        qkv = _dense(c, 3 * width, self.dtype, "qkv")(x).reshape(batch, tokens, 3, *heads)
        query, key, value = (qkv[:, :, i] for i in range(3))  # [B, T, N, H]
        new = jnp.stack([key, value])
        if before is not None:
            earlier = jnp.broadcast_to(before.astype(self.dtype), (2, batch, *before.shape[2:]))
            key, value = (jnp.concatenate(pair, axis=1) for pair in zip(earlier, new, strict=True))
        if at is not None:
            query = _take(query.reshape(x.shape), at).reshape(*at.shape, *heads)
            sees = jnp.take_along_axis(sees, at[:, None, :, None], axis=2)
        attend = attention if self.branches is None else partial(branched_attention, branches=self.branches)
        out = attend(
            query,
            key,
            value,
            mask=sees,
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


def _dense(config: GPT2Config, features: int, dtype: jnp.dtype, name: str, std: float | None = None) -> nn.Dense:
    init = nn.initializers.normal(config.initializer_range if std is None else std)
    return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)


def _residual_std(config: GPT2Config) -> float:
    """What enters the residual stream starts smaller the more layers do (section 2.3 of the paper)."""
    return config.initializer_range / (2 * config.num_layers) ** 0.5


def _layer_norm(config: GPT2Config, dtype: jnp.dtype, name: str | None = None) -> LayerNorm:
    return LayerNorm(config.layer_norm_eps, dtype=dtype, name=name)


def _take(x: jax.Array, at: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, at[..., None], axis=1)


class GPT2(nn.Module):
    """A GPT-2 without its output matrix: tokens to hidden states. Fields as in `BertEncoder`."""

    config: GPT2Config
    segments: Segments
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    stop_gradient_below: int = 0
    dropout_below: bool = True

    def setup(self) -> None:
        c = self.config
        self.embeddings = GPT2Embeddings(c, self.dtype)
        self.layers = self.param("layers", init_layers, self._layer(), self.segments, jnp.zeros((1, 1, c.hidden_size)))
        self.norm = _layer_norm(c, self.dtype)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: None = None,
        *,
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        positions: jax.Array | None = None,
        branches: Branches | None = None,
        deterministic: bool = True,
        layers: Sequence[int] = (-1,),
        first_only: bool = False,
        hidden: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Hidden states [B, T, D], one for each of `layers` (0 the embeddings, k after layer k, negative from the end;
        the last is normalised, as in Hugging Face). The highest of them is [B, K, D] where `positions` [B, K] are
        given, which saves most of the top layer's work.

        `attention_mask` is [B, T], nonzero on real tokens, padded left or right, each of which sees those up to itself;
        or [B, T, T], nonzero where token t may look at token s, and then `position_ids` are needed. `position_ids`
        [B, T] default to the count of real tokens, so that padding shifts nothing. (Hugging Face counts from 0 in every
        row, padding too, unless it generates.) Where rows end in `branches` that see nothing of each other, saying so
        saves the scores between them; `positions`, if given, must then name one of each branch.

        `prompt` [P, D] or [B, P, D] are vectors before all tokens and padding, in the place of word vectors, `prefix`
        [L, 2, P, N, H] keys and values before those of each layer. Both are seen by every token and take the first
        positions, the prefix before the prompt; `position_ids` count what follows. Hidden states are the tokens' alone.
        This is what PEFT does, except that its prompts come with positions that count padding.

        Unless `deterministic`, a "dropout" rng is needed. `hidden` as in `BertEncoder`. Raises `UserError` for an input
        longer than the network reads; where `position_ids` are given, positions beyond the last give NaN.
        """
        c = self.config
        if first_only:
            raise UserError("the first token of a gpt2 model sees only itself: pool the last token, or the mean")
        if token_type_ids is not None:
            raise UserError("gpt2 models have no token types")
        check_prompt_enters(c, prompt, self.stop_gradient_below, hidden)
        wanted = hidden_indices(layers, c.num_layers)
        rng = None if deterministic else self.make_rng("dropout")
        # The embeddings' key is one past the last layer's.
        keys = None if rng is None else layer_keys(rng, c.num_layers + 1)
        below = keys if self.dropout_below or not self.stop_gradient_below else None
        past = jnp.ones((len(attention_mask), c.prefix_length(prefix)), bool)
        size = c.prompt_length(prompt, len(attention_mask))
        sees = visible(attention_mask, size, past)
        start = self.stop_gradient_below
        if hidden is None:
            start = 0
            if position_ids is None:
                c.check_length(input_ids.shape[1], size, past.shape[1])
            rng = None if below is None else below[-1]
            hidden = self._embed(
                input_ids, attention_mask, position_ids=position_ids, prompt=prompt, past=past, rng=rng
            )
        if branches is not None and positions is not None and positions.shape[1] != branches.count:
            raise UserError(
                f"{positions.shape[1]} positions are asked for, but the rows end in {branches.count} branches"
            )
        positions = None if positions is None else positions + size
        layer = self._layer(branches)

        def apply(leaves: Any, h: jax.Array, extra: Any, at: jax.Array | None = None) -> jax.Array:
            key, before = extra
            before = None if before is None else before[:, None]
            return layer.apply({"params": leaves}, h, sees, key, before, at)[0]

        states = run_layers(
            apply,
            self.layers,
            hidden,
            (keys, prefix),
            segments=self.segments,
            wanted=wanted,
            stop_gradient_below=self.stop_gradient_below,
            per_layer_below=(below, lax.stop_gradient(prefix)),
            start=start,
            remat=self.remat,
            apply_top=None if positions is None else partial(apply, at=positions),
        )

        def finish(k: int, state: jax.Array) -> jax.Array:
            if k == c.num_layers > start:
                state = self.norm(state)
            if positions is None or k < max(wanted):
                return state[:, size:]
            return state if k > start else _take(state, positions)

        return tuple(finish(k, state) for k, state in zip(wanted, states, strict=True))

    def extend(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        cache: Cache,
        *,
        position_ids: jax.Array | None = None,
        prompt: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """The last hidden state [B, T, D] of tokens that follow those of a `cache`, or [B, K, D] at `positions` [B, K]
        of them; and the cache with them in it.

        The first call reads a text into an empty cache (`models.layers.cache`), with its `prompt`; each later one
        is given the next tokens [B, T], padded or not (`attention_mask` [B, T]). `position_ids` default to the count
        of real tokens from the cache's first on. Tokens that the cache has no slots for give NaN.
        """
        past, size = cache.real, self.config.prompt_length(prompt, len(input_ids))
        hidden = self._embed(input_ids, attention_mask, position_ids=position_ids, prompt=prompt, past=past)
        sees = visible(attention_mask, size, past)
        real = jnp.concatenate([jnp.ones((len(past), size), bool), attention_mask != 0], axis=1)
        positions = None if positions is None else positions + size

        # The cache goes through the layers with the hidden state, and each writes its own part in place.
        def apply(leaves: Any, state: Any, i: Any, at: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
            h, kv = state
            before = lax.dynamic_index_in_dim(kv, i, keepdims=False)
            h, new = self._layer().apply({"params": leaves}, h, sees, None, before, at)
            return h, lax.dynamic_update_slice(kv, new[None], (i, 0, 0, cache.length, 0, 0))

        ((hidden, kv),) = run_layers(
            apply,
            self.layers,
            (hidden, cache.kv),
            np.arange(self.config.num_layers, dtype=np.int32),
            segments=self.segments,
            wanted=(self.config.num_layers,),
            apply_top=None if positions is None else partial(apply, at=positions),
        )
        hidden = self.norm(hidden if positions is not None else hidden[:, size:])
        fits = cache.length + real.shape[1] <= past.shape[1]
        real = lax.dynamic_update_slice(past, real, (0, cache.length))
        return jnp.where(fits, hidden, jnp.nan), Cache(kv, real, cache.length + size + input_ids.shape[1])

    def _layer(self, branches: Branches | None = None) -> GPT2Layer:
        return GPT2Layer(self.config, self.dtype, branches, parent=None)

    def _embed(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        *,
        position_ids: jax.Array | None,
        prompt: jax.Array | None,
        past: jax.Array,
        rng: jax.Array | None = None,
    ) -> jax.Array:
        """[B, P + T, D]; `past` [B, S] says which of S earlier positions are real."""
        if position_ids is None:
            if attention_mask.ndim == 3:
                raise UserError("an attention_mask [B, T, T] does not say where tokens stand: give position_ids")
            position_ids = count_positions(attention_mask)
        first = past.sum(axis=1, dtype=jnp.int32)[:, None]  # [B, 1]
        if prompt is not None:
            size = prompt.shape[-2]
            place = jnp.broadcast_to(jnp.arange(size), (len(input_ids), size))
            position_ids = jnp.concatenate([place, position_ids + size], axis=1)
        return self.embeddings(input_ids, first + position_ids, prompt, rng)


def _conv1d(hf: str, path: str) -> tuple[Rule, Rule]:
    """The rules of what transformers calls Conv1D: a dense layer with its matrix as Flax has it."""
    return Rule(f"{hf}.weight", f"{path}/kernel"), Rule(f"{hf}.bias", f"{path}/bias")


TABLE = Table(
    rules=(
        Rule("wte.weight", "embeddings/word/embedding"),
        Rule("wpe.weight", "embeddings/position/embedding"),
        *norm("h.{i}.ln_1", "layers/{i}/attention_norm"),
        *_conv1d("h.{i}.attn.c_attn", "layers/{i}/attention/qkv"),
        *_conv1d("h.{i}.attn.c_proj", "layers/{i}/attention/output"),
        *norm("h.{i}.ln_2", "layers/{i}/mlp_norm"),
        *_conv1d("h.{i}.mlp.c_fc", "layers/{i}/mlp/up"),
        *_conv1d("h.{i}.mlp.c_proj", "layers/{i}/mlp/down"),
        *norm("ln_f", "norm"),
    ),
    prefixes=("transformer.", ""),
    # the causal mask, which old files hold; the output matrix, which is the word embeddings; heads of other tasks
    ignorable=(
        *(r"h\.\d+\.attn\.(masked_)?bias", r"lm_head\.weight", r"multiple_choice_head\..*"),
        *(r"score\..*", r"classifier\..*", r"qa_outputs\..*"),
    ),
)
