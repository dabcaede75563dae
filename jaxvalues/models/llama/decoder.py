"""The Llama family (Touvron et al., 2023; Jiang et al., 2023; Gemma and Qwen teams) without its output matrix.

Parameters, for layer i in segment form (`models.layers.layout`):

    embeddings/word/embedding
    layers/{i}/attention_norm/scale, layers/{i}/attention/{query,key,value,output}/{kernel,bias}
    layers/{i}/attention/{query_norm,key_norm}/scale
    layers/{i}/mlp_norm/scale, layers/{i}/mlp/{gate,up,down}/{kernel,bias}
    layers/{i}/{attention_output_norm,mlp_output_norm}/scale
    norm/scale

Biases, the norms of queries and keys and those behind the blocks are there in the models that have them (`config`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.models.layers.branches import Branches
from jaxvalues.models.layers.decoder import Decoder
from jaxvalues.models.layers.embedding import Embedding, after_prompt
from jaxvalues.models.layers.initializers import normal
from jaxvalues.models.layers.ops import dropout
from jaxvalues.models.layers.transformer import Inputs, PerLayer
from jaxvalues.models.llama.config import LlamaConfig
from jaxvalues.models.llama.layer import LlamaLayer, Tables, rms_norm
from jaxvalues.models.llama.rotary import rotary_tables


class LlamaEmbeddings(nn.Module):
    """Word vectors, in Gemma times the root of D: ids [B, T] to [B, P + T, D], behind a `prompt` [P, D] or [B, P, D].

    A prompt's vectors enter as they are, like Hugging Face's `inputs_embeds`.
    """

    config: LlamaConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, prompt: jax.Array | None = None, rng: jax.Array | None = None
    ) -> jax.Array:
        c = self.config
        word = Embedding((c.vocab_size, c.hidden_size), normal(c.initializer_range), name="word")()
        # An id outside the vocabulary gives NaN rather than some other one's vector.
        words = c.word_scale * word.take(input_ids, axis=0, mode="fill")
        return dropout(after_prompt(prompt, words).astype(self.dtype), c.hidden_dropout_prob, rng)


class Llama(Decoder):
    """A network of the Llama family without its output matrix; call and fields are those of `Decoder`.

    In a layer with a window of W positions, a token sees itself and what stands at the W - 1 positions before it, the
    prompt and the prefix included.
    """

    def setup(self) -> None:
        super().setup()
        self.norm = rms_norm(self.config, self.dtype)

    def make_embeddings(self) -> LlamaEmbeddings:
        return LlamaEmbeddings(self.config, self.dtype)

    def make_layer(self, branches: Branches | None = None) -> LlamaLayer:
        return LlamaLayer(self.config, self.dtype, branches, parent=None)

    def layer_example(self) -> tuple[Any, ...]:
        angles = jnp.zeros((1, 1, self.config.head_dim // 2))
        return *super().layer_example(), Tables(jnp.ones((1, 1, 1, 1), bool), angles, angles)

    def embed(self, inputs: Inputs, rng: jax.Array | None) -> tuple[jax.Array, tuple[Tables, ...]]:
        tables = self._tables(inputs)
        if inputs.hidden is not None:
            return inputs.hidden, tables
        return self.embeddings(inputs.input_ids, inputs.prompt, rng), tables

    def layer_and_cache(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        tables = self._tables_of_layer(inputs.shared, each.index)
        layer = self.make_layer(inputs.branches)
        return layer.apply({"params": params}, x, tables, each.rng, each.prefix, positions, cached=each.cached)

    def finish(self, x: jax.Array) -> jax.Array:
        return self.norm(x)

    def _tables(self, inputs: Inputs) -> tuple[Tables, ...]:
        """The tables of each kind of layer."""
        distance = inputs.position_ids[:, :, None] - inputs.key_positions[:, None]  # [B, T, S + T]
        tables = []
        for window, rotary in self.config.kinds:
            mask = inputs.mask if window is None else inputs.mask & (distance < window)[:, None]
            tables.append(Tables(mask, *rotary_tables(rotary, self.config.head_dim, inputs.position_ids)))
        return tuple(tables)

    def _tables_of_layer(self, tables: tuple[Tables, ...], index: Any) -> Tables:
        """Those of the layer `index`, which is traced under a scan."""
        if len(tables) == 1:
            return tables[0]
        kinds = np.array(self.config.kind_of_layer, np.int32)
        if isinstance(index, np.integer):
            return tables[kinds[index]]
        kind = jnp.asarray(kinds)[index]
        return jax.tree.map(lambda *each: lax.select_n(kind, *each), *tables)
