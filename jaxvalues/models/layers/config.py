"""What every network's config has: its sizes, how it is read from a config.json, and the lengths it accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax

from jaxvalues.errors import UserError, name_list
from jaxvalues.models.layers.ops import activation


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The sizes and rates that all networks with one stack of layers have; the names are BERT's on Hugging Face.

    An architecture's config adds its own fields, and a `from_hf` that says which settings it supports.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    initializer_range: float = 0.02

    @classmethod
    def read(cls, config: Mapping[str, Any], supported: Mapping[str, Any]) -> Self:
        """The config of a config.json's contents; `supported` are settings that may only have the value given here.

        Raises `UserError` for a missing field, a setting of another value, an unknown activation, and a hidden size
        that the heads do not divide.
        """
        model_type = config.get("model_type")
        fields = read_fields(cls, config, model_type)
        check_supported(config, supported, model_type)
        activation(fields["hidden_act"])
        if fields["hidden_size"] % fields["num_attention_heads"]:
            raise UserError(
                f"hidden_size {fields['hidden_size']} is not a multiple of num_attention_heads "
                f"{fields['num_attention_heads']} in config.json"
            )
        return cls(**fields)

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def head_size(self) -> int:
        """The width H of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """The longest input T that the network reads."""
        return self.max_position_embeddings

    @property
    def word_size(self) -> int:
        """The width E of the word vectors."""
        return self.hidden_size

    def prompt_length(self, prompt: jax.Array | None, rows: int) -> int:
        """The length P of a prompt, 0 for None; raises `UserError` unless it is [P, E], or [B, P, E] for B `rows`."""
        if prompt is None:
            return 0
        width = self.word_size
        if prompt.ndim < 2 or prompt.shape not in ((prompt.shape[-2], width), (rows, prompt.shape[-2], width)):
            raise UserError(
                f"a prompt for this {self.model_type} model is [P, {width}] or [{rows}, P, {width}], not {prompt.shape}"
            )
        return prompt.shape[-2]

    def prefix_length(self, prefix: jax.Array | None) -> int:
        """The length P of a prefix, 0 for None; raises `UserError` unless it is [L, 2, P, N, H]."""
        if prefix is None:
            return 0
        heads = (self.num_attention_heads, self.head_size)
        if prefix.ndim != 5 or prefix.shape != (self.num_layers, 2, prefix.shape[2], *heads):
            raise UserError(
                f"a prefix for this {self.model_type} model is [{self.num_layers}, 2, P, {heads[0]}, {heads[1]}], "
                f"not {prefix.shape}"
            )
        return prefix.shape[2]

    def check_length(self, tokens: int, prompt: int = 0, prefix: int = 0) -> None:
        """Raise `UserError` if T `tokens` behind a prompt and a prefix of these lengths are more than `max_tokens`."""
        if prefix + prompt + tokens > self.max_tokens:
            before = f" after a prompt of {prompt} and a prefix of {prefix}" if prompt or prefix else ""
            raise UserError(
                f"the input has {tokens} tokens{before}, but this {self.model_type} model reads at most "
                f"{self.max_tokens} in all"
            )


def read_fields(cls: type, config: Mapping[str, Any], model_type: str | None) -> dict[str, Any]:
    """The fields of a config's dataclass, {name: value}, from a config.json's contents; null counts as absent.

    Raises `UserError` that names the fields which have neither a value nor a default.
    """
    given = {key: value for key, value in config.items() if value is not None}
    fields = {field.name: given.get(field.name, field.default) for field in dataclasses.fields(cls)}
    missing = [name for name, value in fields.items() if value is dataclasses.MISSING]
    if missing:
        raise UserError(f"config.json of the {model_type} model lacks {name_list(missing)}")
    return fields


def check_supported(config: Mapping[str, Any], supported: Mapping[str, Any], model_type: str | None) -> None:
    """Raise `UserError` for a key of a config.json that has another value than the one in `supported`."""
    for key, value in supported.items():
        found = config.get(key)
        if found is not None and found != value:
            raise UserError(f"{key} = {found!r} is not supported for {model_type} models, only {value!r}")
