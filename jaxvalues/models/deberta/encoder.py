"""DeBERTa encoders: v1 (He et al., 2021), v2 and v3 (He et al., 2023), and how their checkpoints are read.

A BERT whose attention also looks at distances (`jaxvalues.models.deberta.attention`), usually without absolute
positions. Parameters are BERT's, and where the config asks for them:

    embeddings/project/kernel                      word vectors narrower than the network
    embeddings/relative/embedding                  relative embeddings [2S, D], shared by all layers
    embeddings/relative_norm/{scale,bias}          v2 and v3 normalise them
    embeddings/conv/{kernel,bias}, embeddings/conv_norm/{scale,bias}         v2-xlarge and xxlarge
    layers/{i}/attention/relative_{key,query}/...  projections of the relative embeddings, unless they are shared
    layers/{i}/attention/in_proj/kernel, layers/{i}/attention/{query,value}/bias     v1, for query, key and value

What Hugging Face calls the pooler is part of its classification head, not of the encoder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.bert.encoder import (
    BertConfig,
    BertMLP,
    Embedding,
    after_prompt,
    check_prompt_enters,
    pad_left,
    take_only,
    tokens_alone,
)
from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, norm, transpose
from jaxvalues.models.deberta.attention import DebertaAttention, relative_window
from jaxvalues.models.layers.layout import Segments
from jaxvalues.models.layers.norm import LayerNorm
from jaxvalues.models.layers.ops import activation, dropout
from jaxvalues.models.layers.stack import hidden_indices, init_layers, layer_keys, run_layers

# What Hugging Face reads from the config of v2 and v3 only.
_SINCE_V2 = ("position_buckets", "share_att_key", "norm_rel_ebd", "conv_kernel_size", "conv_groups", "conv_act")


@dataclasses.dataclass(frozen=True)
class DebertaConfig(BertConfig):
    """The sizes and rates of a DeBERTa encoder; names and defaults are Hugging Face's."""

    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    embedding_size: int | None = None  # width of the word vectors, hidden_size where None
    position_biased_input: bool = True  # absolute positions are added to the embeddings
    relative_attention: bool = False
    pos_att_type: tuple[str, ...] = ()
    max_relative_positions: int = -1  # below 1: max_position_embeddings
    position_buckets: int = -1  # logarithmic buckets of distances; without any where below 1
    share_att_key: bool = False  # relative embeddings go through the projections of the words
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DebertaConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        is_v1 = config.get("model_type") == "deberta"
        given = {key: value for key, value in config.items() if not (is_v1 and key in _SINCE_V2)}
        kinds = given.get("pos_att_type") or ()
        kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
        given["pos_att_type"] = tuple(kind.strip() for kind in kinds)
        c = super().from_hf(given)

        def supported(key: str, value: Any, good: bool, expected: str) -> None:
            if not good:
                raise UserError(f"{key} = {value!r} is not supported for {c.model_type} models, only {expected}")

        types = set(c.pos_att_type)
        distinct = types <= {"c2p", "p2c"} and len(types) == len(c.pos_att_type)
        supported("pos_att_type", config.get("pos_att_type"), distinct, "c2p, p2c or both")
        supported("talking_head", config.get("talking_head"), not config.get("talking_head"), "False")
        size = c.hidden_size // c.num_attention_heads
        given_size = config.get("attention_head_size") or size
        supported("attention_head_size", given_size, given_size == size, f"{size} (hidden_size / num_attention_heads)")
        norms = {part.strip() for part in c.norm_rel_ebd.lower().split("|")}
        supported("norm_rel_ebd", c.norm_rel_ebd, norms <= {"none", "layer_norm"}, "'none' or 'layer_norm'")
        odd = c.conv_kernel_size == 0 or c.conv_kernel_size % 2 == 1
        supported("conv_kernel_size", c.conv_kernel_size, odd, "odd sizes")
        activation(c.conv_act)
        return c

    @property
    def max_tokens(self) -> int:
        """The longest input T: relative positions alone set no limit."""
        return self.max_position_embeddings if self.position_biased_input else sys.maxsize

    @property
    def word_size(self) -> int:
        """The width of the word, position and token-type embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def relative_span(self) -> int:
        """The longest distance that is told from longer ones."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def relative_rows(self) -> int:
        """The rows of the table of relative embeddings, 2S."""
        return 2 * (self.position_buckets if self.position_buckets > 0 else self.relative_span)


class Embedded(NamedTuple):
    """What the layers are given: `hidden` [B, T, D]; `relative` [R, D], the rows of the relative embeddings that T
    tokens need; `local` [B, T, D], what the convolution adds after the first layer, and `local_norm`, the parameters
    of the norm over that sum. Each is None where the config has no such part. T counts a prompt's vectors too."""

    hidden: jax.Array
    relative: jax.Array | None
    local: jax.Array | None
    local_norm: dict[str, jax.Array] | None


class DebertaEmbeddings(nn.Module):
    """Everything that is made once and not by a layer: ids [B, T] and `real` [B, P + T, 1], 1 on real tokens.

    A `prompt` [P, E] or [B, P, E] stands before the words, in their place, with token type 0, and is real.
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
    ) -> Embedded:
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
        init = nn.initializers.normal(c.initializer_range)
        if c.word_size != c.hidden_size:
            x = nn.Dense(c.hidden_size, use_bias=False, dtype=self.dtype, kernel_init=init, name="project")(x)
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
        return Embedded(x, self._relative(size + tokens), local, local_norm)

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
        def init(rng: jax.Array, shape: tuple[int, int]) -> jax.Array:
            table = self.config.initializer_range * jax.random.normal(rng, shape)
            return table if zero_row is None else table.at[zero_row].set(0.0)

        return Embedding((rows, width or self.config.word_size), init, name=name)()


def _layer_norm(config: DebertaConfig, dtype: jnp.dtype, **where: Any) -> LayerNorm:
    return LayerNorm(config.layer_norm_eps, dtype=dtype, **where)


class DebertaLayer(nn.Module):
    """One post-norm transformer layer: [B, T, D] to [B, T, D], or to [B, 1, D] with `only`, as `BertLayer`.

    `relative` [R, D] is the same for every layer; `mask` and `before` are as in `BertLayer`.
    """

    config: DebertaConfig
    dtype: jnp.dtype = jnp.float32
    form: str = "shift"
    only: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        relative: jax.Array | None = None,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
        before: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        rngs = (None,) * 3 if rng is None else jax.random.split(rng, 3)
        attention = DebertaAttention(c, self.dtype, self.form, self.only, name="attention")
        a = attention(x, relative, mask, rngs[0], before)
        x = take_only(x, self.only)
        x = _layer_norm(c, self.dtype, name="attention_norm")(x + dropout(a, c.hidden_dropout_prob, rngs[1]))
        m = BertMLP(c, self.dtype, name="mlp")(x)
        return _layer_norm(c, self.dtype, name="mlp_norm")(x + dropout(m, c.hidden_dropout_prob, rngs[2]))


class DebertaEncoder(nn.Module):
    """A DeBERTa encoder of any version; fields as in `BertEncoder`, and `form`, how relative scores are laid out
    ("shift", or "gather" to compare with: the same numbers)."""

    config: DebertaConfig
    segments: Segments
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    stop_gradient_below: int = 0
    dropout_below: bool = True
    form: str = "shift"

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
        """Hidden states [B, T, D], one for each of `layers`, the highest [B, 1, D] if `first_only`; see `BertEncoder`.

        They are Hugging Face's on real tokens. On padding they are finite and mean nothing.

        A `prompt` [P, E] or [B, P, E], E the width of word vectors, goes the way of words: it is projected, normalised,
        convolved, and has its distances to the tokens, as `inputs_embeds` have in Hugging Face. A `prefix`
        [L, 2, P, N, H] stands nowhere: its keys are seen by every token for their content alone, whatever the distance,
        and the tokens' positions are what they are without it. (Hugging Face's DeBERTa takes no past keys.)
        """
        c = self.config
        wanted = hidden_indices(layers, c.num_layers)
        check_prompt_enters(c, prompt, self.stop_gradient_below, hidden)
        past, size = c.prefix_length(prefix), c.prompt_length(prompt, len(attention_mask))
        rng = None if deterministic else self.make_rng("dropout")
        # The embeddings' key is one past the last layer's.
        keys = None if rng is None else layer_keys(rng, c.num_layers + 1)
        below = keys if self.dropout_below or not self.stop_gradient_below else None
        if hidden is not None:  # of all the embeddings only the relative ones are needed then, and so computed
            input_ids = jnp.zeros(hidden.shape[:2], jnp.int32)
        seen = pad_left(attention_mask != 0, size, True)  # [B, P + T]
        real = seen[..., None].astype(self.dtype)
        embedded = DebertaEmbeddings(c, self.dtype, name="embeddings")(
            input_ids, real, token_type_ids, None if below is None else below[-1], prompt
        )
        if hidden is not None:
            embedded = embedded._replace(hidden=hidden)
        if self.stop_gradient_below > 0:  # the layers above look at the relative embeddings too
            embedded = lax.stop_gradient(embedded)

        layer = DebertaLayer(c, self.dtype, self.form, parent=None)
        example = jnp.zeros((1, 1, c.hidden_size))
        window, _ = relative_window(1, c.position_buckets, c.relative_span)
        rows = jnp.zeros((window.stop - window.start, c.hidden_size)) if c.relative_attention else None
        params = self.param("layers", init_layers, layer, self.segments, example, rows)
        mask = pad_left(seen, past, True)[:, None, None, :]  # [B, 1, 1, S + P + T]

        is_first = np.arange(c.num_layers) == 0

        def apply(one_layer: DebertaLayer, leaves: Any, hidden: jax.Array, extra: Any) -> jax.Array:
            key, is_first, before = extra
            hidden = one_layer.apply({"params": leaves}, hidden, embedded.relative, mask, key, before)
            if embedded.local is None:
                return hidden
            return lax.cond(is_first, partial(_add_local, c, embedded, real, one_layer.only), lambda h: h, hidden)

        states = run_layers(
            partial(apply, layer),
            params,
            embedded.hidden,
            (keys, is_first, prefix),
            segments=self.segments,
            wanted=wanted,
            stop_gradient_below=self.stop_gradient_below,
            per_layer_below=(below, is_first, lax.stop_gradient(prefix)),
            start=0 if hidden is None else self.stop_gradient_below,
            remat=self.remat,
            apply_top=partial(apply, layer.clone(only=size)) if first_only else None,
        )
        return tokens_alone(states, size)


def _add_local(
    config: DebertaConfig, embedded: Embedded, real: jax.Array, only: int | None, hidden: jax.Array
) -> jax.Array:
    """What follows the first layer where there is a convolution: its features are added and the sum is normalised."""
    local, real = (take_only(x, only) for x in (embedded.local, real))
    norm = _layer_norm(config, real.dtype, parent=None)
    return norm.apply({"params": embedded.local_norm}, hidden + local) * real


_ATTENTION = "encoder.layer.{i}.attention.self"
_SHARED = (
    Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding"),
    Rule("embeddings.position_embeddings.weight", "embeddings/position/embedding"),
    Rule("embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding"),
    Rule("embeddings.embed_proj.weight", "embeddings/project/kernel", transpose, transpose),
    *norm("embeddings.LayerNorm", "embeddings/norm"),
    Rule("encoder.rel_embeddings.weight", "embeddings/relative/embedding"),
    *dense("encoder.layer.{i}.attention.output.dense", "layers/{i}/attention/output"),
    *norm("encoder.layer.{i}.attention.output.LayerNorm", "layers/{i}/attention_norm"),
    *dense("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
    *dense("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
    *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/mlp_norm"),
)
_V1 = (
    Rule(f"{_ATTENTION}.in_proj.weight", "layers/{i}/attention/in_proj/kernel", transpose, transpose),
    Rule(f"{_ATTENTION}.q_bias", "layers/{i}/attention/query/bias"),
    Rule(f"{_ATTENTION}.v_bias", "layers/{i}/attention/value/bias"),
    Rule(f"{_ATTENTION}.pos_proj.weight", "layers/{i}/attention/relative_key/kernel", transpose, transpose),
    *dense(f"{_ATTENTION}.pos_q_proj", "layers/{i}/attention/relative_query"),
)
_V2 = (
    *dense(f"{_ATTENTION}.query_proj", "layers/{i}/attention/query"),
    *dense(f"{_ATTENTION}.key_proj", "layers/{i}/attention/key"),
    *dense(f"{_ATTENTION}.value_proj", "layers/{i}/attention/value"),
    *dense(f"{_ATTENTION}.pos_key_proj", "layers/{i}/attention/relative_key"),
    *dense(f"{_ATTENTION}.pos_query_proj", "layers/{i}/attention/relative_query"),
    *norm("encoder.LayerNorm", "embeddings/relative_norm"),
    *dense("encoder.conv.conv", "embeddings/conv"),  # torch's [out, in, width] reversed is Flax's [width, in, out]
    *norm("encoder.conv.LayerNorm", "embeddings/conv_norm"),
)
_PREFIXES = ("deberta.", "")
# Task heads and buffers; and the absolute positions of pre-training, which published files hold and no layer sees.
_IGNORABLE = (
    *(r"pooler\..*", r"classifier\..*", r"qa_outputs\..*", r"embeddings\.position_ids"),
    *(r"cls\..*", r"lm_predictions\..*", r"mask_predictions\..*", r"embeddings\.position_embeddings\.weight"),
)
TABLE_V1 = Table(_SHARED + _V1, _PREFIXES, _IGNORABLE)
TABLE_V2 = Table(_SHARED + _V2, _PREFIXES, _IGNORABLE)
