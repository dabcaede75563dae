"""MPNet's encoder (Song et al., 2020): RoBERTa's positions, without token types, and a bias for distances.

The bias is that of T5's encoder (`models.layers.distance_bias`): 16 buckets for keys before the query and 16 for keys
after it, one bias for each bucket and head. It is computed once and shared by all layers. Parameters are those of
`models.layers.post_norm`, and its table, embeddings/relative/embedding [32, N].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvalues.models.layers.distance_bias import distance_bias, distance_buckets
from jaxvalues.models.layers.embedding import Embedding
from jaxvalues.models.layers.encoder import Encoder
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.post_norm import PostNormLayer, WordEmbeddings
from jaxvalues.models.layers.transformer import Inputs, PerLayer
from jaxvalues.models.mpnet.config import BUCKETS, MAX_DISTANCE


class MPNetEmbeddings(WordEmbeddings):
    """The embeddings of words and positions, and the table of biases."""

    def setup(self) -> None:
        super().setup()
        c = self.config
        self.relative = Embedding((BUCKETS, c.num_attention_heads), normal(c.initializer_range))

    def bias(self, tokens: int, past: int = 0) -> jax.Array:
        """The bias [1, N, T, S + T] of the scores of T `tokens` and, before them, of S `past` keys, for which it is 0.

        It counts places in the row, padding included.
        """
        buckets = distance_buckets(BUCKETS, MAX_DISTANCE, bidirectional=True)
        bias = distance_bias(self.relative(), buckets, tokens, tokens, 0)
        return jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (past, 0)))


class MPNetEncoder(Encoder):
    """An MPNet encoder; call and fields are those of `Encoder`. It has no token types.

    A prompt goes the way of words: it takes the first positions and has its distances to the tokens, as Hugging Face's
    `inputs_embeds` have. A prefix has no position: every token attends to its keys by content alone, and the tokens'
    positions are those without it. (Hugging Face's MPNet takes no past keys.)
    """

    def make_embeddings(self) -> MPNetEmbeddings:
        return MPNetEmbeddings(self.config, self.dtype)

    def make_layer(self) -> PostNormLayer:
        return PostNormLayer(self.config, self.dtype, parent=None)

    def embed(self, inputs: Inputs, rng: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        x = inputs.hidden
        if x is None:
            x = self.embeddings(inputs.input_ids, None, rng, inputs.prompt)
        return x, self.embeddings.bias(x.shape[1], inputs.prefix_length)

    def layer(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: int | None = None
    ) -> jax.Array:
        layer = self.make_layer()
        return layer.apply({"params": params}, x, inputs.mask, each.rng, each.prefix, positions, bias=inputs.shared)
