"""Rotary positions (RoPE; Su et al., 2021) and the ways in which checkpoints stretch them to longer contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvalues.errors import UserError, name_list, short

_KINDS = ("default", "linear", "dynamic", "llama3")
_FACTORS = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}


class Rotary(NamedTuple):
    """The frequencies of rotary positions: base `theta`, and how they are scaled.

    `linear` divides all frequencies by `factor`. `llama3` divides those whose wave is longer than `original_length` /
    `low`, keeps those whose wave is shorter than `original_length` / `high`, and interpolates between them. (`dynamic`
    changes nothing within `max_position_embeddings`, beyond which no network here reads: it is read as `default`.)
    """

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 1.0
    original_length: int = 0

    def frequencies(self, head_size: int) -> np.ndarray:
        """The angles of one step [H / 2], float32."""
        exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
        angles = np.float32(1) / np.float32(self.theta) ** exponents
        if self.kind == "linear":
            return angles / np.float32(self.factor)
        if self.kind != "llama3":
            return angles
        waves = np.float32(2 * math.pi) / angles
        share = (self.original_length / waves - self.low) / (self.high - self.low)  # of what is kept, 0 to 1
        share = np.clip(share, 0, 1).astype(np.float32)
        return (1 - share) * angles / np.float32(self.factor) + share * angles


def read_rotary(
    content: Any, theta: float, context_length: int, model_type: str | None, key: str = "rope_parameters"
) -> Rotary:
    """The rotary positions of an entry `key` of a config.json, `rope_parameters` or the older `rope_scaling`.

    `theta` is the base where the entry has none. Raises `UserError` for a kind that is not supported and for numbers
    that are missing or cannot be.
    """
    content = {} if content is None else content
    if not isinstance(content, Mapping):
        raise UserError(f"{key} = {short(content)} in config.json, expected an object")
    kind = content.get("rope_type", content.get("type", "default"))
    if kind not in _KINDS:
        raise UserError(
            f"{key}.rope_type = {short(kind)} is not supported for {model_type} models, only {', '.join(_KINDS)}"
        )
    if content.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise UserError(f"{key}.partial_rotary_factor is not supported for {model_type} models, only 1")
    numbers = {"rope_theta": content.get("rope_theta", theta)}
    numbers |= {name: content.get(name) for name in _FACTORS.get(kind, ())}
    if kind == "llama3":
        original = content.get("original_max_position_embeddings")
        numbers["original_max_position_embeddings"] = context_length if original is None else original
    if wrong := [name for name, number in numbers.items() if not _is_positive(number)]:
        raise UserError(f"{key} of rope_type {kind} in config.json needs positive numbers for {name_list(wrong)}")
    low, high = (float(numbers.get(name, 1.0)) for name in ("low_freq_factor", "high_freq_factor"))
    if kind == "llama3" and low >= high:
        raise UserError(f"{key}: low_freq_factor {low:g} is not below high_freq_factor {high:g} in config.json")
    kind = "default" if kind == "dynamic" else kind
    original = int(numbers.get("original_max_position_embeddings", 0))
    return Rotary(float(numbers["rope_theta"]), kind, float(numbers.get("factor", 1.0)), low, high, original)


def rotary_tables(rotary: Rotary, head_size: int, position_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [B, T, H / 2] of the angles at `position_ids` [B, T], float32."""
    angles = position_ids[..., None].astype(jnp.float32) * rotary.frequencies(head_size)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Queries or keys x [B, T, N, H] turned by the angles of `rotary_tables`, in float32, returned in x's dtype.

    Dimension i is paired with i + H / 2, as in Hugging Face's files. (Meta's own files pair neighbours.)
    """
    # Halves change places by a reversal: a loop over two concatenated halves is slow on CPU.
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    cos, sin = cos[:, :, None, None], jnp.stack([-sin, sin], axis=2)[:, :, None]  # [B, T, 1, 1 or 2, H / 2]
    return (halves * cos + jnp.flip(halves, axis=-2) * sin).reshape(x.shape).astype(x.dtype)


def _is_positive(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number) and number > 0
