"""The driver of the layer loop, the same for every network with one stack of layers.

`Transformer` owns the parameters of the layers, the dropout keys, the part that is not differentiated, and what becomes
of a prompt. `Encoder` (`layers.encoder`) and `Decoder` (`layers.decoder`) add the call and its masks. An architecture
fills in four hooks:

    make_embeddings()   the module under the key "embeddings"
    make_layer()        one layer, and in `layer_example` what it is initialised with
    embed(...)          from tokens to the first hidden state
    layer(...)          from one hidden state to the next
    finish(...)         what follows the last layer, such as a norm
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxvalues.models.layers.branches import Branches
from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.embedding import check_prompt_is_trainable
from jaxvalues.models.layers.layout import Segments
from jaxvalues.models.layers.masks import select_positions
from jaxvalues.models.layers.stack import hidden_indices, layer_keys, layers_of, run_layers


class Inputs(NamedTuple):
    """What one call gives to the hooks: T tokens behind a prompt of P vectors and S earlier keys.

    `mask` broadcasts to [B, 1, P + T, S + P + T] and is True where a query may attend to a key. `position_ids`
    [B, P + T] and `key_positions` [B, S + P + T], where keys stand, are a decoder's alone. `hidden` are features to
    start from in the place of tokens. `shared` is what `embed` makes for all layers.
    """

    input_ids: jax.Array
    attention_mask: jax.Array
    mask: jax.Array
    prompt_length: int = 0
    prefix_length: int = 0
    token_type_ids: jax.Array | None = None
    position_ids: jax.Array | None = None
    key_positions: jax.Array | None = None
    prompt: jax.Array | None = None
    prefix: jax.Array | None = None
    branches: Branches | None = None
    hidden: jax.Array | None = None
    shared: Any = None


class PerLayer(NamedTuple):
    """What each layer has for itself: its dropout key, keys and values of its prefix [2, P, K, H], its index.

    Each of `cached` [2, B, K, R, H] are keys and values of R earlier tokens, in a decoder.
    """

    rng: jax.Array | None
    prefix: jax.Array | None
    index: Any
    cached: tuple[jax.Array, ...] = ()


class Transformer(nn.Module):
    """A stack of equal layers between embeddings and hidden states.

    Fields: `segments`, how the layers are grouped (see `layers.layout`); `dtype` of the computation (parameters are
    float32); `remat`, whether activations are recomputed in the backward pass; `stop_gradient_below` = k > 0, where
    embeddings and layers below k are not differentiated; `dropout_below`, whether there is dropout in those.
    """

    config: TransformerConfig
    segments: Segments
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    stop_gradient_below: int = 0
    dropout_below: bool = True

    def setup(self) -> None:
        self.embeddings = self.make_embeddings()
        self.layers = layers_of(self, self.make_layer(), self.segments, *self.layer_example())

    def make_embeddings(self) -> nn.Module:
        """The module of everything below the layers."""
        raise NotImplementedError

    def make_layer(self) -> nn.Module:
        """One layer, without a parent: its parameters are given to it."""
        raise NotImplementedError

    def layer_example(self) -> tuple[Any, ...]:
        """Arguments of a layer's `__call__` from which its parameters get their shapes."""
        return (jnp.zeros((1, 1, self.config.hidden_size)),)

    def embed(self, inputs: Inputs, rng: jax.Array | None) -> tuple[jax.Array, Any]:
        """The hidden state [B, P + T, D] that enters the layers, `inputs.hidden` if given; and `Inputs.shared`."""
        raise NotImplementedError

    def layer(
        self, params: Any, x: jax.Array, inputs: Inputs, each: PerLayer, positions: int | jax.Array | None = None
    ) -> jax.Array:
        """One layer with these `params`: x [B, P + T, D] to the same, or to [B, K, D] at `positions` alone.

        `positions` are one int for all rows, or [B, K].
        """
        raise NotImplementedError

    def finish(self, x: jax.Array) -> jax.Array:
        """The last hidden state from the output of the last layer."""
        return x

    def hidden_states(
        self,
        inputs: Inputs,
        *,
        layers: Sequence[int],
        deterministic: bool,
        positions: int | jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Hidden states [B, T, D] of the tokens, one for each of `layers` (see `hidden_indices`).

        The highest of them is [B, K, D] at `positions`, which count a prompt; most of the top layer's work is saved.
        """
        c, k = self.config, self.stop_gradient_below
        wanted = hidden_indices(layers, c.num_layers)
        check_prompt_is_trainable(c.model_type, inputs.prompt, k, inputs.hidden)
        rng = None if deterministic else self.make_rng("dropout")
        # The embeddings' key is one past the last layer's.
        keys = None if rng is None else layer_keys(rng, c.num_layers + 1)
        keys_below = keys if self.dropout_below or k == 0 else None
        start = 0 if inputs.hidden is None else k
        x, shared = self.embed(inputs, None if keys_below is None else keys_below[-1])
        inputs = inputs._replace(shared=lax.stop_gradient(shared) if k > 0 else shared)

        def apply(params: Any, x: jax.Array, each: PerLayer, positions: int | jax.Array | None = None) -> jax.Array:
            return self.layer(params, x, inputs, each, positions)

        index = np.arange(c.num_layers, dtype=np.int32)
        states = run_layers(
            apply,
            self.layers,
            x,
            PerLayer(keys, inputs.prefix, index),
            segments=self.segments,
            wanted=wanted,
            stop_gradient_below=k,
            per_layer_below=PerLayer(keys_below, lax.stop_gradient(inputs.prefix), index),
            start=start,
            remat=self.remat,
            apply_top=None if positions is None else partial(apply, positions=positions),
        )

        def of_tokens(i: int, state: jax.Array) -> jax.Array:
            if i == c.num_layers > start:
                state = self.finish(state)
            if positions is None or i < max(wanted):
                return state[:, inputs.prompt_length :]
            return state if i > start else select_positions(state, positions)

        return tuple(of_tokens(i, state) for i, state in zip(wanted, states, strict=True))
