"""A bias of the scores of attention for the distance of query and key (Raffel et al., 2020, section 2.1).

Distances fall into buckets, one per distance nearby and logarithmic ones far away. A table holds a bias for each bucket
and head. It is looked up once per distance and then shifted (`attention.shift`); Hugging Face looks it up for every
pair of positions. T5 has it, and MPNet.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.models.layers.attention import shift


def distance_buckets(num_buckets: int, max_distance: int, bidirectional: bool) -> np.ndarray:
    """The bucket of each distance key - query from -M to M, [2M + 1], where M is `max_distance`.

    If `bidirectional`, half of the buckets is for keys before the query and half for keys after it. Otherwise all are
    for keys before it; those after it, which a causal mask hides, share the bucket of distance 0.
    """
    size = num_buckets // 2 if bidirectional else num_buckets
    exact = size // 2
    far = np.arange(max_distance + 1)
    # In float32 as in the original, so that rounding puts every distance into the same bucket.
    ratio = np.maximum(far, exact).astype(np.float32) / np.float32(exact)
    steps = np.log(ratio) / np.float32(np.log(max_distance / exact)) * np.float32(size - exact)
    near = np.where(far < exact, far, np.minimum(exact + steps.astype(np.int64), size - 1))
    ahead = near[1:] + size if bidirectional else np.zeros(max_distance, np.int64)
    return np.concatenate([near[::-1], ahead])


def distance_bias(table: jax.Array, buckets: np.ndarray, tokens: int, keys: int, start: jax.Array | int) -> jax.Array:
    """The bias [1, N, T, S] of the scores of T queries at the positions from `start` and S keys at 0 to S - 1.

    `table` [buckets, N] holds the biases; `buckets` are `distance_buckets`; `start` may be traced.
    """
    farthest = len(buckets) // 2
    distances = jnp.arange(tokens + keys) - (start + tokens - 1)
    rows = jnp.take(buckets, jnp.clip(distances, -farthest, farthest) + farthest)
    bias = table.take(rows, axis=0).T  # [N, T + S]
    return shift(jnp.broadcast_to(bias[:, None], (len(bias), tokens, tokens + keys)))[None]
