"""Checks the settings of a config.json, for all architectures: which keys are not followed, and which sizes cannot be.

Everything is refused from arithmetic, before a network is built or memory is taken.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxvalues.errors import UserError, short

MOST_PARAMETERS = 10**12
"""More than any published dense network has."""
MOST_LAYERS = 1000
_MOST = 2**31 - 1  # token ids and positions are int32

# Keys that change what transformers computes and that no network here follows, and why they are set.
_NOT_FOLLOWED = {
    "pruned_heads": "heads were removed from it",
    "quantization_config": "its weights are quantized",
    "auto_map": "it needs code of its own",
    "tie_encoder_decoder": "its encoder and decoder share weights",
    "cross_attention_hidden_size": "it attends to another network",
}
_ONLY = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
_LEAST = {  # 1 for all other whole numbers
    "type_vocab_size": 0, "pad_token_id": 0, "decoder_start_token_id": 0, "conv_kernel_size": 0,
    "max_relative_positions": -1, "position_buckets": -1,
}  # fmt: skip
_LAYERS = ("num_hidden_layers", "num_layers", "num_decoder_layers")
_RATES = ("dropout", "drop")  # parts of the names of rates


def check_followed(config: Mapping[str, Any], model_type: str | None) -> None:
    """Raise `UserError`, naming the key, for a setting of a config.json that no network here follows."""
    for key, why in _NOT_FOLLOWED.items():
        if config.get(key) not in (None, False, {}, []):
            raise UserError(f"{key} is set in config.json of the {model_type} model ({why}), which is not supported")
    check_supported(config, _ONLY, model_type)


def check_supported(config: Mapping[str, Any], supported: Mapping[str, Any], model_type: str | None) -> None:
    """Raise `UserError` for a key of a config.json that has another value than the one in `supported`."""
    for key, value in supported.items():
        found = config.get(key)
        if found is not None and found != value:
            raise UserError(f"{key} = {short(found)} is not supported for {model_type} models, only {value!r}")


def check_fields(cls: type, fields: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raise `UserError` for a field of a config's dataclass that has the wrong type or cannot be of that size.

    `names` are the keys of the config.json under which fields stood, where they differ.
    """
    for field in dataclasses.fields(cls):
        value = fields[field.name]
        if value is None and "None" in str(field.type):
            continue
        if expected := _problem(field.name, str(field.type).split(" ", maxsplit=1)[0], value):
            key = names.get(field.name, field.name)
            raise UserError(f"{key} = {short(value)} in config.json, expected {expected}")


def check_total(sizes: Mapping[str, int], parameters: int) -> None:
    """Raise `UserError` for a network with more than MOST_PARAMETERS; `sizes` are those it has by their keys."""
    if parameters > MOST_PARAMETERS:
        told = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise UserError(
            f"{told} in config.json make a network of {parameters:.0e} parameters, expected at most "
            f"{MOST_PARAMETERS:.0e}"
        )


def check_heads(hidden: tuple[str, int], heads: tuple[str, int]) -> None:
    """Raise `UserError` unless the heads divide the hidden size; both are (key, size)."""
    if hidden[1] % heads[1]:
        raise UserError(f"{hidden[0]} {hidden[1]} is not a multiple of {heads[0]} {heads[1]} in config.json")


def _problem(name: str, kind: str, value: Any) -> str | None:
    """What was expected in place of a value, or None for one that is right."""
    match kind:
        case "int":
            least, most = _LEAST.get(name, 1), MOST_LAYERS if name in _LAYERS else _MOST
            good = type(value) is int and least <= value <= most
            return None if good else f"a whole number from {least} to {most}"
        case "float":
            is_rate = any(part in name for part in _RATES)
            good = type(value) in (int, float) and math.isfinite(value) and 0 <= value < (1 if is_rate else math.inf)
            return None if good else "a rate from 0 to below 1" if is_rate else "a number that is not negative"
        case "bool":
            return None if isinstance(value, bool) else "true or false"
        case "str":
            return None if isinstance(value, str) else "a word"
    return None
