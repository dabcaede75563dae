"""BERT (Devlin et al., 2019) and RoBERTa (Liu et al., 2019) encoders.

The two differ only in how positions are counted. Parameters are those of `models.layers.post_norm`.
"""

from __future__ import annotations

from typing import Any

import jax

from jaxvalues.models.layers.encoder import Encoder
from jaxvalues.models.layers.post_norm import PostNormLayer, WordEmbeddings
from jaxvalues.models.layers.transformer import Inputs, PerLayer


class BertEncoder(Encoder):
    """A BERT or RoBERTa encoder; call and fields are those of `Encoder`."""

    def make_embeddings(self) -> WordEmbeddings:
        return WordEmbeddings(self.config, self.dtype)

    def make_layer(self) -> PostNormLayer:
        return PostNormLayer(self.config, self.dtype, parent=None)

    def embed(self, inputs: Inputs, rng: jax.Array | None) -> tuple[jax.Array, None]:
        if inputs.hidden is not None:
            return inputs.hidden, None
        return self.embeddings(inputs.input_ids, inputs.token_type_ids, rng, inputs.prompt, inputs.prefix_length), None

    def layer(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: int | None = None
    ) -> jax.Array:
        return self.make_layer().apply({"params": params}, x, inputs.mask, each.rng, each.prefix, positions)
