"""The loop over a stack of equal layers: segment by segment, unrolled or scanned, up to the highest wanted layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxvalues.errors import UserError
from jaxvalues.models.layers.layout import Segments, segment_key
from jaxvalues.models.layers.sharded import gathered_once


def init_layers(rng: jax.Array, layer: nn.Module, segments: Segments, *example: Any) -> dict[str, Any]:
    """Initial parameters of every layer, {segment: tree}, the same numbers however the layers are grouped.

    Layer i is initialised from fold_in(rng, i); `example` are the arguments of the layer's `__call__`.
    """
    stacked = jax.vmap(lambda key: layer.init(key, *example)["params"])(layer_keys(rng, segments[-1][1] + 1))
    return {
        segment_key((first, last)): _take(stacked, first if first == last else slice(first, last + 1))
        for first, last in segments
    }


def layers_of(module: nn.Module, layer: nn.Module, segments: Segments, *example: Any) -> dict[str, Any]:
    """The parameters of all layers under the key "layers" of `module`, made by `init_layers` where there are none.

    Flax would compare their shapes with those of `init_layers`, and more may stand beside a kernel (`layers.dense`).
    """
    if module.is_initializing() or not module.has_variable("params", "layers"):
        return module.param("layers", init_layers, layer, segments, *example)
    return module.get_variable("params", "layers")


def layer_keys(rng: jax.Array, num_layers: int) -> jax.Array:
    """One key per layer [L], the same whether the layers are scanned or not."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, jnp.arange(num_layers))


def hidden_indices(layers: Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Non-negative indices of hidden states: 0 is the embeddings, k the output of layer k, -1 the last, as in HF."""
    for k in layers:
        if not -num_layers - 1 <= k <= num_layers:
            raise UserError(
                f"hidden state {k} was asked for, but a network of {num_layers} layers has {-num_layers - 1} to "
                f"{num_layers} (0 is the embeddings)"
            )
    return tuple(k % (num_layers + 1) for k in layers)


def run_layers(
    apply: Callable[[Any, Any, Any], Any],
    params: dict[str, Any],
    hidden: Any,
    per_layer: Any = None,
    *,
    segments: Segments,
    wanted: tuple[int, ...],
    stop_gradient_below: int = 0,
    per_layer_below: Any = None,
    start: int = 0,
    remat: bool = False,
    apply_top: Callable[[Any, Any, Any], Any] | None = None,
) -> tuple[Any, ...]:
    """The hidden states [B, T, D] with the indices `wanted` (see `hidden_indices`), in that order.

    `apply(layer_params, hidden, extra)` is one layer. `per_layer` is a pytree whose leaves have a leading axis [L],
    such as dropout keys and prefixes; `extra` is the layer's slice of it. Nothing above the highest wanted state is
    computed.

    With `stop_gradient_below` = k > 0 neither the layers below k nor their input is differentiated, and these layers
    get their slice of `per_layer_below` instead. `hidden` is the hidden state with the index `start`; nothing below it
    is computed or can be wanted, and a segment must begin there. It may be any pytree that goes from layer to layer,
    such as a state and a cache. `remat` recomputes each layer's activations in the backward pass instead of keeping
    them. `apply_top` replaces `apply` in the highest computed layer, which is then never scanned; it may return fewer
    positions.
    """
    _check_cut("gradients stop", stop_gradient_below, segments)
    _check_cut("the layers start", start, segments)
    if min(wanted) < start:
        raise UserError(f"hidden state {min(wanted)} is wanted, but the layers start from hidden state {start}")
    if remat:
        apply, apply_top = (
            jax.checkpoint(_gathering_once(apply)),
            apply_top and jax.checkpoint(_gathering_once(apply_top)),
        )
    if stop_gradient_below > 0:
        hidden = lax.stop_gradient(hidden)
    states, top = {start: hidden}, max(wanted)
    for first, last in segments:
        end = min(last + 1, top)  # one past the last layer that is needed
        if first >= end:
            break
        if last < start:
            continue
        leaves, extra = params[segment_key((first, last))], per_layer
        if last < stop_gradient_below:
            leaves, extra = lax.stop_gradient(leaves), per_layer_below
        scanned = 0 if first == last else min(end, top - (apply_top is not None)) - first
        if scanned:
            keep = any(first < k < first + scanned for k in wanted)  # states inside the segment are wanted too
            xs = _take(leaves, slice(0, scanned)), _take(extra, slice(first, first + scanned))
            hidden, inner = _scan(apply, hidden, xs, keep)
            states[first + scanned] = hidden
            if keep:
                states |= {first + 1 + i: _take(inner, i) for i in range(scanned - 1)}
        if first + scanned < end:
            one = leaves if first == last else _take(leaves, scanned)
            layer = apply_top if apply_top and end == top else apply
            hidden = _gathering_once(layer)(one, hidden, _take(extra, end - 1))
        states[end] = hidden
    return tuple(states[k] for k in wanted)


def _gathering_once(apply: Callable) -> Callable:
    return lambda params, hidden, extra: apply(gathered_once(params), hidden, extra)


def _scan(apply: Callable, hidden: Any, xs: Any, keep: bool) -> tuple[Any, Any]:
    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = apply(x[0], h, x[1])
        return h, h if keep else None

    return lax.scan(step, hidden, xs)


def _take(tree: Any, index: int | slice) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _check_cut(what: str, layer: int, segments: Segments) -> None:
    starts = [first for first, _ in segments] + [segments[-1][1] + 1]
    if layer not in starts:
        raise UserError(
            f"{what} below layer {layer}, which is inside a stacked segment; "
            f"a segment must begin there, but they begin at {', '.join(map(str, starts))}"
        )
