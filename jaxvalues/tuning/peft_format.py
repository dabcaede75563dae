"""Converts trained parameters to an adapter of the PEFT library and back: the same numbers under PEFT's names.

    prompt    PROMPT_TUNING   prompt_embeddings [P, E]                        T5: only before the encoder
    p_tuning  P_TUNING        prompt_embeddings [P, E], its network's output  T5: only before the encoder
    prefix    PREFIX_TUNING   prompt_embeddings [P, L · 2 · N · H]            T5: only in the decoder's self-attention
    lora      LORA            {module}.lora_A.weight [r, in], {module}.lora_B.weight [out, r]
    ia3       IA3             {module}.ia3_l [out, 1], or [1, in] where the input is scaled

Module names are those of transformers and come from the conversion tables. A setting that the other library does not
support is an error that names it. For GPT-2 with prompts, PEFT counts padding as positions, so the outputs agree only
on rows without padding or with padding on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.config import TuningConfig
from jaxvalues.errors import ConfigError, UserError, name_list
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.sequence_classification import NAMINGS, head_module_names
from jaxvalues.models.heads.masked_lm import masked_lm_table
from jaxvalues.models.layers.layout import ungroup
from jaxvalues.models.t5.checkpoint import t5_table
from jaxvalues.models.t5.config import T5Config
from jaxvalues.models.t5.model import Prefix, Prompt
from jaxvalues.tuning.ia3 import INPUT_SCALED
from jaxvalues.tuning.method import Params
from jaxvalues.tuning.peft_folder import PEFT_TYPES, Tensors, read_adapter_config, read_adapter_tensors

_PREFIX = "base_model.model."  # what PEFT puts before the names of the base model
_VECTORS = "prompt_embeddings"


class PeftTarget(NamedTuple):
    """The base model of an adapter, described for PEFT."""

    hf_config: Mapping[str, Any]  # the contents of its config.json
    task_type: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS"] | None = None  # None: a masked language model
    base_model_name_or_path: str | None = None

    @property
    def model_type(self) -> str:
        return self.hf_config["model_type"]


class Adapter(NamedTuple):
    """An adapter as a trainable tree with unrolled layers, without new parameters. P-tuning is read as a prompt.

    `modules` are the tensors of a classifier's modules around its encoder that trained too (PEFT's modules_to_save), as
    named in transformers; see `head_from_modules`.
    """

    method: Literal["prompt", "prefix", "lora", "ia3"]
    trainable: Params
    rank: int | None = None  # of lora
    alpha: float | None = None
    modules: Mapping[str, np.ndarray] = MappingProxyType({})


def to_peft(
    config: TuningConfig,
    target: PeftTarget,
    trainable: Params,
    *,
    prompt: jax.Array | Prompt | None = None,
    prefix: jax.Array | Prefix | None = None,
    modules: Mapping[str, Tensors] | None = None,
) -> tuple[dict[str, Any], Tensors]:
    """The content of adapter_config.json and the tensors of adapter_model.safetensors.

    `prompt` and `prefix` are those of the `Bound` that the method's `bind` returns. `modules` are modules of the base
    model that trained too, such as a classifier's head (PEFT's modules_to_save): {module: {tensor: array}}. Raises
    ConfigError for a setting that PEFT does not support.
    """
    method = config.method
    if method not in PEFT_TYPES:
        raise ConfigError(f"tuning.method {method} has no equivalent in PEFT, only {', '.join(PEFT_TYPES)} have one")
    if not modules and (rest := sorted(trainable.keys() - {method})):
        raise ConfigError(
            f"tuning.method {method}: a PEFT adapter cannot contain the parameters that also trained: {name_list(rest)}"
        )
    content = {
        "peft_type": PEFT_TYPES[method],
        "task_type": target.task_type,
        "base_model_name_or_path": target.base_model_name_or_path,
        "inference_mode": True,
        "modules_to_save": list(modules) if modules else None,
    }
    match method:
        case "prompt" | "p_tuning":
            settings, tensors = _write_prompt(config, target, prompt)
        case "prefix":
            settings, tensors = _write_prefix(target, prefix)
        case "lora":
            settings, tensors = _write_lora(config, target, trainable["lora"])
        case "ia3":
            settings, tensors = _write_ia3(target, trainable["ia3"])
    for module, leaves in (modules or {}).items():
        tensors |= {f"{_PREFIX}{module}.{name}": leaf for name, leaf in leaves.items()}
    return content | settings, {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}


def from_peft(folder: str | Path, target: PeftTarget) -> Adapter:
    """Reads an adapter that `save_adapter` or PEFT wrote for the same base model.

    The caller must compare its shapes with those of the run. Raises UserError for a faulty folder and for settings or
    tensors that this package does not support.
    """
    folder = Path(folder)
    content = read_adapter_config(folder)
    modules, tensors = _split_modules(target, read_adapter_tensors(folder))
    try:
        match content["peft_type"]:
            case "LORA":
                tree = _read_modules(target, tensors, {".lora_A.weight": "a", ".lora_B.weight": "b"})
                return Adapter("lora", {"lora": tree}, content["r"], float(content["lora_alpha"]), modules)
            case "IA3":
                tree = _read_modules(target, tensors, {".ia3_l": "scale"})
                return Adapter("ia3", {"ia3": tree}, modules=modules)
            case "PREFIX_TUNING":
                return Adapter("prefix", {"prefix": _read_prefix(content, target, tensors)}, modules=modules)
            case _:
                return Adapter("prompt", {"prompt": _read_prompt(content, target, tensors)}, modules=modules)
    except _AdapterError as error:
        raise UserError(f"{folder}: the adapter cannot be read: {error}") from None


def _write_prompt(
    config: TuningConfig, target: PeftTarget, prompt: jax.Array | Prompt | None
) -> tuple[dict[str, Any], Tensors]:
    _check_vectors(target, config.method)
    if isinstance(prompt, Prompt):
        if prompt.decoder is not None:  # PEFT creates one with num_transformer_submodules = 2, but does not use it
            raise ConfigError(
                "tuning.sides: PEFT supports no prompt before T5's decoder, so only a run with tuning.sides=[encoder] "
                "can be exported"
            )
        prompt = prompt.encoder
    length, width = prompt.shape
    settings = {"num_virtual_tokens": length, "token_dim": width, "num_transformer_submodules": 1}
    if config.method == "p_tuning":
        settings["encoder_reparameterization_type"] = (config.reparameterization or "mlp").upper()
        settings["encoder_hidden_size"] = config.reparameterization_size or width
    return settings, {_VECTORS: prompt}


def _read_prompt(content: dict[str, Any], target: PeftTarget, tensors: Tensors) -> Params:
    _check_vectors(target, "prompt")
    # For T5, PEFT may store as many vectors again for the decoder, and does not use them.
    return {"encoder": _vectors(content, tensors, copies=2 if target.model_type == "t5" else 1)}


def _write_prefix(target: PeftTarget, prefix: jax.Array | Prefix | None) -> tuple[dict[str, Any], Tensors]:
    _check_vectors(target, "prefix")
    if isinstance(prefix, Prefix):
        if prefix.encoder is not None or prefix.cross is not None:
            raise ConfigError(
                "tuning.sides: for T5, PEFT supports prefixes only in the decoder's self-attention, so only a run with "
                "tuning.sides=[decoder] can be exported"
            )
        prefix = prefix.decoder
    layers, _, length, heads, size = prefix.shape
    rows = np.asarray(prefix).transpose(2, 0, 1, 3, 4)
    if target.model_type == "t5":
        rows = np.stack([rows, np.zeros_like(rows)], axis=2)  # PEFT does not use the zeros (cross-attention)
        layers *= 2
    settings = {
        "num_virtual_tokens": length,
        "num_layers": layers,
        "num_attention_heads": heads,
        "token_dim": heads * size,  # differs from the hidden size of some T5 models
        "num_transformer_submodules": 2 if target.model_type == "t5" else 1,
        "prefix_projection": False,
    }
    return settings, {_VECTORS: rows.reshape(length, -1)}


def _read_prefix(content: dict[str, Any], target: PeftTarget, tensors: Tensors) -> Params:
    _check_vectors(target, "prefix")
    rows, layers, heads = _vectors(content, tensors), content["num_layers"], content["num_attention_heads"]
    if rows.shape[1] % (2 * layers * heads):
        raise _AdapterError(
            f"{_VECTORS} {list(rows.shape)} cannot be keys and values of {layers} layers and {heads} heads"
        )
    places, stack = np.arange(2 * layers).reshape(layers, 2), "encoder"
    if target.model_type == "t5":
        places, stack = _t5_places(layers, T5Config.from_hf(target.hf_config).num_decoder_layers), "decoder"
    rows = rows.reshape(len(rows), 2 * layers, heads, -1)[:, places]  # [P, L, 2, N, H]
    return {stack: np.ascontiguousarray(rows.transpose(1, 2, 0, 3, 4))}


def _t5_places(num_layers: int, decoder_layers: int) -> np.ndarray:
    """The indices [L, 2] of the keys and values of T5's decoder layers in an adapter with the setting `num_layers`.

    PEFT repeats the 2 · num_layers entries, gives each layer the next four of them (two for self-attention, two for
    cross-attention) and ignores those of cross-attention. With num_layers = L, PEFT's default, only about L / 2
    prefixes are distinct. With num_layers = 2L each layer has its own, so `_write_prefix` uses 2L.
    """
    if num_layers < decoder_layers:
        raise _AdapterError(
            f"num_layers is {num_layers}, expected at least {decoder_layers}, the layers of the decoder"
        )
    return (4 * np.arange(decoder_layers)[:, None] + np.arange(2)) % (2 * num_layers)


def _write_lora(config: TuningConfig, target: PeftTarget, tree: Params) -> tuple[dict[str, Any], Tensors]:
    tensors, names, leaves = {}, _module_names(target), _by_layer(tree)
    for path, leaf in leaves.items():
        tensors[f"{_PREFIX}{names[path]}.lora_A.weight"] = leaf["a"].T
        tensors[f"{_PREFIX}{names[path]}.lora_B.weight"] = leaf["b"].T
    settings = {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": [names[path] for path in leaves],
        "fan_in_fan_out": target.model_type == "gpt2",  # GPT-2's matrices are [in, out] in transformers too
    }
    return settings, tensors


def _write_ia3(target: PeftTarget, tree: Params) -> tuple[dict[str, Any], Tensors]:
    tensors, names, leaves = {}, _module_names(target), _by_layer(tree)
    inputs = [path for path in leaves if path.rsplit("/", 1)[-1] in INPUT_SCALED[target.model_type]]
    for path, leaf in leaves.items():
        shape = (1, -1) if path in inputs else (-1, 1)
        tensors[f"{_PREFIX}{names[path]}.ia3_l"] = leaf["scale"].reshape(shape)
    settings = {
        "target_modules": [names[path] for path in leaves],
        "feedforward_modules": [names[path] for path in inputs],
        "fan_in_fan_out": target.model_type == "gpt2",
    }
    return settings, tensors


def _split_modules(target: PeftTarget, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """(tensors of the modules around a classifier's encoder, named as in transformers; the adapter's own)."""
    starts = tuple(f"{name}." for name in head_module_names(target.model_type))
    # PEFT's names around prompts and prefixes lack the second half of its prefix.
    found = {name: name.removeprefix(_PREFIX).removeprefix("base_model.") for name in tensors}
    modules = {plain: tensors[name] for name, plain in found.items() if plain.startswith(starts)}
    return modules, {name: tensor for name, tensor in tensors.items() if found[name] not in modules}


def _read_modules(target: PeftTarget, tensors: Tensors, leaves: dict[str, str]) -> Params:
    """The tree of tensors named "{module}{suffix}". `leaves` is {suffix: name of the leaf in the tree}."""
    paths = {
        f"{_PREFIX}{name}{suffix}": (path, suffix) for path, name in _module_names(target).items() for suffix in leaves
    }
    if unexpected := [name for name in tensors if name not in paths]:
        raise _AdapterError(f"no layer of the {target.model_type} model has the tensors {name_list(unexpected)}")
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        path, suffix = paths[name]
        if leaves[suffix] == "scale":
            scaled = "input" if path.rsplit("/", 1)[-1] in INPUT_SCALED[target.model_type] else "output"
            if tensor.shape != ((1, tensor.size) if scaled == "input" else (tensor.size, 1)):
                raise _AdapterError(
                    f"feedforward_modules: {name} has the shape {list(tensor.shape)}, but this package scales the "
                    f"layer's {scaled}"
                )
        found[f"{path}/{leaves[suffix]}"] = tensor.reshape(-1) if leaves[suffix] == "scale" else tensor.T
    layers = {path.rsplit("/", 1)[0] for path in found}
    if halves := sorted(path for path in layers for leaf in leaves.values() if f"{path}/{leaf}" not in found):
        raise _AdapterError(f"one of the two matrices is missing for {name_list(halves)}")
    if not found:
        raise _AdapterError("it has no tensors")
    return unflatten_dict({path: np.ascontiguousarray(leaf) for path, leaf in found.items()}, sep="/")


def _vectors(content: dict[str, Any], tensors: Tensors, copies: int = 1) -> np.ndarray:
    """The first P rows of the one tensor of a prompt or prefix adapter. It has P or `copies` · P rows."""
    length = content["num_virtual_tokens"]
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if (
        shapes.keys() != {_VECTORS}
        or len(shapes[_VECTORS]) != 2
        or shapes[_VECTORS][0] not in (length, copies * length)
    ):
        found = name_list(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise _AdapterError(
            f"expected only {_VECTORS} with num_virtual_tokens = {length} rows, but it has {found or 'no tensors'}"
        )
    return tensors[_VECTORS][:length]


def _check_vectors(target: PeftTarget, method: str) -> None:
    """Raises ConfigError for encoders. PEFT's prompts and prefixes agree with ours only for causal models and T5.

    PEFT has no masked language model with prompts, and its classifiers pool the prompt's first vector instead of the
    first token.
    """
    if target.model_type in NAMINGS:
        raise ConfigError(
            f"tuning.method {method} on a {target.model_type} model differs from PEFT's, so it cannot be exchanged, "
            "expected lora or ia3"
        )


def _module_names(target: PeftTarget) -> dict[str, str]:
    """{path of a dense layer in our parameters: name of the module in transformers}, for all layers."""
    if target.model_type == "t5":
        network = T5Config.from_hf(target.hf_config)
        table, layers = t5_table(network), max(network.num_layers, network.num_decoder_layers)
        prefix = ""
    else:
        architecture = ARCHITECTURES[target.model_type]
        layers = architecture.config.from_hf(target.hf_config).num_layers
        if target.model_type in NAMINGS:
            table, prefix = masked_lm_table(target.hf_config, ()), NAMINGS[target.model_type].encoder
        else:
            table, prefix = architecture.table.under("encoder"), architecture.table.prefixes[0]
    return {
        rule.path.removesuffix("/kernel").replace("{i}", str(i)): (prefix if rule.path.startswith("encoder/") else "")
        + rule.hf.removesuffix(".weight").replace("{i}", str(i))
        for rule in table.rules
        if rule.path.endswith("/kernel")
        for i in range(layers)
    }


def _by_layer(tree: Params) -> dict[str, dict[str, np.ndarray]]:
    """{path of a dense layer: its leaves} of a tree with any grouping of layers."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for (*path, name), leaf in flatten_dict(ungroup(tree)).items():
        layers.setdefault("/".join(path), {})[name] = np.asarray(leaf)
    return layers


class _AdapterError(Exception):
    """A problem with an adapter. `from_peft` adds the folder to the message."""
