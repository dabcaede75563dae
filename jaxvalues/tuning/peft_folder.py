"""Reads and writes the folder of a PEFT adapter: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxvalues.config.reading import entry, read_json
from jaxvalues.errors import UserError, name_list, short
from jaxvalues.models.checkpoints.weights import save_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Tensors = dict[str, np.ndarray]

# {tuning method: PEFT's `peft_type`}
PEFT_TYPES = {
    "prompt": "PROMPT_TUNING",
    "p_tuning": "P_TUNING",
    "prefix": "PREFIX_TUNING",
    "lora": "LORA",
    "ia3": "IA3",
}

# Settings that are read, or that do not affect a trained adapter. All others must be off.
_NEUTRAL = {"peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"}
_NEUTRAL |= {"inference_mode", "target_modules", "exclude_modules", "feedforward_modules", "fan_in_fan_out"}
_NEUTRAL |= {"r", "lora_alpha", "lora_dropout", "init_lora_weights", "init_ia3_weights", "qalora_group_size"}
_NEUTRAL |= {"modules_to_save"}  # names modules that may not exist: PEFT lists classifier and score for any classifier
_NEUTRAL |= {"layers_to_transform", "layers_pattern", "megatron_core", "runtime_config"}
_NEUTRAL |= {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
_NEUTRAL |= {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"}
_NEUTRAL |= {"encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout"}
_NEUTRAL |= {"prefix_projection", "init_weights"}
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_OFF = (None, False, "none", "None", [], {})
# Other values (pissa, olora, …) change the weights of the base model.
_LORA_INITIALIZATIONS = (True, False, "gaussian", "orthogonal")


def save_adapter(folder: str | Path, content: Mapping[str, Any], tensors: Tensors) -> None:
    """Writes the output of `to_peft` to a folder, for `peft.PeftModel.from_pretrained(base, folder)`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_safetensors(tensors, folder / WEIGHTS)


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    """The content of a folder's adapter_config.json. Raises UserError for a missing or faulty file and for settings
    that this package does not support."""
    path = Path(folder) / CONFIG
    content = read_json(path, "an adapter in PEFT's format")
    kind = content.get("peft_type")
    if kind not in PEFT_TYPES.values():
        raise UserError(f"{path}: peft_type {str(kind)[:40]} is not supported, only {', '.join(PEFT_TYPES.values())}")
    for key, value in content.items():
        if key not in _NEUTRAL and value not in _OFF:
            raise UserError(f"{path}: {key} = {short(value)} is not supported, expected an adapter without it")
    if (value := content.get("init_lora_weights", True)) not in _LORA_INITIALIZATIONS:
        raise UserError(
            f"{path}: init_lora_weights = {short(value)} is not supported, because it changes the base model's weights"
        )
    needed = {"LORA": ("r", "lora_alpha"), "IA3": ()}.get(kind, ("num_virtual_tokens",))
    needed += ("num_layers", "num_attention_heads") if kind == "PREFIX_TUNING" else ()
    if missing := [key for key in needed if content.get(key) is None]:
        raise UserError(f"{path}: the setting {name_list(missing)} is missing")
    for key in needed:
        kinds = (int, float) if key == "lora_alpha" else int
        if not entry(content, key, kinds, path) > 0:
            raise UserError(f"{path}: `{key}` is {short(content[key])}, expected a number above 0")
    return content


def read_adapter_tensors(folder: str | Path) -> Tensors:
    """{name: tensor} of an adapter, in float32. Raises UserError for a missing or faulty file."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        if path.with_suffix(".bin").is_file():
            raise UserError(
                f"{folder}: the folder has only adapter_model.bin, expected {WEIGHTS}: load it with PEFT where torch "
                "is installed and save it again with save_pretrained"
            )
        raise UserError(f"{folder}: the folder has no {WEIGHTS}, expected an adapter in PEFT's format")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: the file is not a complete safetensors file ({short(str(error), 80)})") from error
    if mistyped := [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype.name not in _FLOATS]:
        raise UserError(f"{path}: the adapter has tensors of another type than floats: {name_list(mistyped)}")
    return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
