"""What every network's config has: its sizes, how it is read from a config.json, and the lengths it accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax

from jaxvalues.errors import UserError, name_list
from jaxvalues.models.layers.ops import activation
from jaxvalues.models.layers.validation import check_fields, check_followed, check_heads, check_supported, check_total


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
    def read(
        cls, config: Mapping[str, Any], supported: Mapping[str, Any], names: Mapping[str, str] | None = None
    ) -> Self:
        """The config of a config.json's contents; `supported` are settings that may only have the value given here.

        `names` are the file's keys of fields, where they differ. Raises `UserError` for a missing field, a setting that
        is not followed, an unknown activation, and sizes that cannot be.
        """
        model_type, names = config.get("model_type"), names or {}
        fields = read_fields(cls, config, model_type, names)
        check_supported(config, {**supported, "is_encoder_decoder": False}, model_type)
        activation(fields["hidden_act"])
        c = cls(**fields)
        sizes = {
            key: (names.get(key, key), fields[key])
            for key in ("hidden_size", "num_attention_heads", "vocab_size", "intermediate_size", "num_hidden_layers")
        }
        check_heads(sizes["hidden_size"], sizes["num_attention_heads"])
        tables = (c.vocab_size + c.max_position_embeddings) * c.word_size
        layer = c.hidden_size * (4 * c.hidden_size + 2 * c.intermediate_size)
        told = [sizes[key] for key in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers")]
        check_total(dict(told), tables + c.num_layers * layer)
        return c

    def with_dropout(self, hidden: float | None, attention: float | None) -> Self:
        """The config with these rates in place of its own; None keeps one."""
        rates = {"hidden_dropout_prob": hidden, "attention_probs_dropout_prob": attention}
        return dataclasses.replace(self, **{key: rate for key, rate in rates.items() if rate is not None})

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def head_size(self) -> int:
        """The width H of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self) -> int:
        """The number K of heads of keys and values; N / K heads of queries share each."""
        return self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """The longest input T that the network reads."""
        return self.max_position_embeddings

    @property
    def word_size(self) -> int:
        """The width E of the word vectors."""
        return self.hidden_size

    @property
    def word_scale(self) -> float:
        """What word vectors are multiplied with when they enter; a prompt's vectors are not."""
        return 1.0

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
        """The length P of a prefix, 0 for None; raises `UserError` unless it is [L, 2, P, K, H]."""
        if prefix is None:
            return 0
        heads = (self.key_value_heads, self.head_size)
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


def read_fields(
    cls: type, config: Mapping[str, Any], model_type: str | None, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The fields of a config's dataclass, {name: value}, from a config.json's contents; null counts as absent.

    `names` are the file's keys of fields, where they differ. Raises `UserError` that names the fields which have
    neither a value nor a default, a field of the wrong type or size, and a setting that no network follows.
    """
    given = {key: value for key, value in config.items() if value is not None}
    fields = {field.name: given.get(field.name, field.default) for field in dataclasses.fields(cls)}
    missing = [name for name, value in fields.items() if value is dataclasses.MISSING]
    if missing:
        raise UserError(f"config.json of the {model_type} model lacks {name_list(missing)}")
    check_followed(config, model_type)
    check_fields(cls, fields, names or {})
    return fields
