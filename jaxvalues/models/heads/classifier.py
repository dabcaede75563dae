"""An encoder with 20 sigmoid outputs: pooled hidden states, then one linear layer or one classifier per category."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvalues.errors import UserError
from jaxvalues.models.layers.dense import Dense
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.masks import last_token
from jaxvalues.models.layers.ops import dropout


class Outputs(NamedTuple):
    """The result of a forward pass: `logits` [B, C], and `embedding` [B, E], which a contrastive loss compares."""

    logits: jax.Array
    embedding: jax.Array


class Classifier(nn.Module):
    """Tokens to logits [B, C], float32. Parameters are {"encoder": ..., "head": {"kernel", "bias"}}.

    Fields: `encoder`, an `Encoder` or a `Decoder`; `heads`, "single" (one linear layer, kernel [D, C]) or "multiple"
    (one classifier per category with its own dropout mask, kernel [C, D]); `pooling`, "cls" (first token), "mean" (over
    real tokens) or "last" (last real token, for causal networks); `layers`, the hidden states that are pooled, and
    `combine`, "concat" or "mean" over them; `dropout_rate` before the head; `projection_size`, the width of a
    `projection` of the pooled vector, which is then the embedding (None: the pooled vector is).
    """

    encoder: nn.Module
    num_labels: int = 20
    heads: str = "single"
    pooling: str = "cls"
    layers: tuple[int, ...] = (-1,)
    combine: str = "concat"
    dropout_rate: float = 0.1
    projection_size: int | None = None

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
        hidden: jax.Array | None = None,
    ) -> Outputs:
        """Logits and embedding of `input_ids` [B, T]; `attention_mask` [B, T] is nonzero on real tokens.

        `prompt` and `prefix` are those of the encoder. Only tokens are pooled: "cls" is the first of them, never a
        prompt's vector.

        `hidden` are features to start from instead of ids (see `Encoder`). Unless `deterministic`, a "dropout" rng is
        needed. Raises `UserError` for a field with an unknown choice.
        """
        _choose("heads", self.heads, ("single", "multiple"))
        _choose("combine", self.combine, ("concat", "mean"))
        states = self.encoder(
            input_ids,
            attention_mask,
            token_type_ids,
            prompt=prompt,
            prefix=prefix,
            deterministic=deterministic,
            layers=self.layers,
            first_only=self.pooling == "cls",
            hidden=hidden,
        )
        pooled = [pool(h, attention_mask, self.pooling) for h in states]
        features = jnp.concatenate(pooled, -1) if self.combine == "concat" else sum(pooled) / len(pooled)  # [B, D]
        rng = None if deterministic else self.make_rng("dropout")
        logits = Head(self.num_labels, self.heads, self.dropout_rate, name="head")(features, rng)
        if self.projection_size is None:
            return Outputs(logits, features)
        return Outputs(logits, Projection(self.projection_size, name="projection")(features))


class Projection(nn.Module):
    """The projection head of SimCLR (Chen et al., 2020): features [B, D] to [B, E], through one hidden layer."""

    size: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return Dense(self.size, name="out")(nn.relu(Dense(features.shape[-1], name="hidden")(features)))


class Head(nn.Module):
    """Dropout and the linear classifiers: features [B, D] to logits [B, C]."""

    num_labels: int
    heads: str
    dropout_rate: float

    @nn.compact
    def __call__(self, features: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        shape = (features.shape[-1], self.num_labels)
        multiple = self.heads == "multiple"
        kernel = self.param("kernel", normal(0.02), shape[::-1] if multiple else shape)
        bias = self.param("bias", nn.initializers.zeros, (self.num_labels,))
        if not multiple:
            return dropout(features, self.dropout_rate, rng) @ kernel + bias
        each = jnp.broadcast_to(features[:, None, :], (len(features), *kernel.shape))  # [B, C, D]
        return jnp.einsum("bcd,cd->bc", dropout(each, self.dropout_rate, rng), kernel) + bias


def pool(hidden: jax.Array, attention_mask: jax.Array, pooling: str) -> jax.Array:
    """One float32 vector per row [B, D] from hidden states [B, T, D]: "cls" the first token, "mean" the real ones,
    "last" the last real one.

    A row without a real token gives zeros under "mean", and its last position under "last".
    """
    _choose("pooling", pooling, ("cls", "mean", "last"))
    hidden = hidden.astype(jnp.float32)
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return jnp.take_along_axis(hidden, last_token(attention_mask)[:, None, None], axis=1)[:, 0]
    real = (attention_mask != 0).astype(jnp.float32)
    return jnp.einsum("bt,btd->bd", real, hidden) / jnp.maximum(real.sum(1, keepdims=True), 1.0)


def _choose(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{field} is '{value}', expected one of {', '.join(choices)}")
