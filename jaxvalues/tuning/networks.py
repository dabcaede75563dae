"""The small networks that compute the vectors of a prompt or a prefix, as in PEFT, with torch's initialisation.

A linear layer is {"kernel" [in, out], "bias" [out]}. Vectors are rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from jaxvalues.tuning.method import Params


@dataclass(frozen=True)
class MLP:
    """A multi-layer perceptron: layer names[i] maps sizes[i] to sizes[i + 1], with `activation` between layers."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    def init(self, rng: jax.Array) -> Params:
        """The initial parameters: {name: linear layer}."""
        return {
            name: init_linear(jax.random.fold_in(rng, i), *self.sizes[i : i + 2]) for i, name in enumerate(self.names)
        }

    def __call__(self, params: Params, x: jax.Array) -> jax.Array:
        """x [P, sizes[0]] to [P, sizes[-1]]."""
        for name in self.names[:-1]:
            x = self.activation(linear(params[name], x))
        return linear(params[self.names[-1]], x)


@dataclass(frozen=True)
class BiLSTM:
    """A bidirectional LSTM of two layers (Hochreiter & Schmidhuber, 1997). `width` is the input's size, `size` is h.

    It has one bias [4 h] instead of torch's two, which are added. The gates are in torch's order: input, forget, cell
    and output.
    """

    width: int
    size: int

    def init(self, rng: jax.Array) -> Params:
        """{"first" | "second": {"forward" | "backward": {"input" [in, 4 h], "hidden" [h, 4 h], "bias" [4 h]}}}."""
        first, second = jax.random.split(rng)
        return {"first": self._draw(first, self.width), "second": self._draw(second, 2 * self.size)}

    def __call__(self, params: Params, x: jax.Array) -> jax.Array:
        """x [P, width] to [P, 2 h]: the hidden states of the forward and the backward direction."""
        for name in ("first", "second"):
            both = params[name]
            x = jnp.concatenate([_lstm(both["forward"], x), _lstm(both["backward"], x, reverse=True)], axis=-1)
        return x

    def _draw(self, rng: jax.Array, width: int) -> Params:
        shapes = {"input": (width, 4 * self.size), "hidden": (self.size, 4 * self.size), "bias": (4 * self.size,)}
        keys = iter(jax.random.split(rng, 2 * len(shapes)))
        return {
            direction: {name: uniform_fan_in(next(keys), shape, self.size) for name, shape in shapes.items()}
            for direction in ("forward", "backward")
        }


def _lstm(params: Params, x: jax.Array, reverse: bool = False) -> jax.Array:
    """One direction of one layer: x [P, in] to the hidden states [P, h], in the order of x."""
    zero = jnp.zeros(len(params["hidden"]))

    def step(state: tuple[jax.Array, jax.Array], given: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hidden, cell = state
        i, f, g, o = jnp.split(given + hidden @ params["hidden"], 4)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    return lax.scan(step, (zero, zero), x @ params["input"] + params["bias"], reverse=reverse)[1]


def linear(params: Params, x: jax.Array) -> jax.Array:
    """x [..., in] to [..., out]."""
    return x @ params["kernel"] + params["bias"]


def init_linear(rng: jax.Array, fan_in: int, fan_out: int) -> Params:
    """A linear layer with torch's initial weights."""
    kernel, bias = jax.random.split(rng)
    return {
        "kernel": uniform_fan_in(kernel, (fan_in, fan_out), fan_in),
        "bias": uniform_fan_in(bias, (fan_out,), fan_in),
    }


def uniform_fan_in(rng: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """Uniform in ±fan_in ** -0.5: torch's initialisation of linear layers (He et al., 2015, with slope √5)."""
    limit = fan_in**-0.5
    return jax.random.uniform(rng, shape, minval=-limit, maxval=limit)
