"""Checkpoints in llama.cpp's GGUF format, read as Hugging Face's: the config, and tensors that are dequantised lazily.

What llama.cpp changed is put back: in files of architecture `llama` the rows of q and k are permuted for rotary
positions of neighbours, Gemma's norms are stored plus one, and GPT-2's matrices are turned. A file without
`output.weight` has a tied head. Names are those of llama.cpp's `gguf-py/gguf/constants.py`; the package `gguf` (extra
`gguf`) reads the file and its quantised types.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxvalues.errors import UserError, first_line, short
from jaxvalues.models.llama.rotary import Rotary

SUFFIX = ".gguf"

_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3": "gemma3_text"}
_MODEL_TYPES["gpt2"] = "gpt2"
_KEYS = {  # GGUF's, behind the architecture: Hugging Face's
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_GPT2_KEYS = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_NAMES = {
    **_NAMES,
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GPT2_NAMES = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_LARGE_GEMMA = {"gemma2": 46, "gemma3": 62}  # the layers of those of 27 billion, whose heads are scaled otherwise
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_FREQUENCIES = "rope_freqs.weight"


@dataclasses.dataclass(frozen=True)
class GGUFTensor:
    """A tensor in an open file, with its shape; numpy reads its numbers, dequantised and as Hugging Face has them."""

    tensor: Any  # gguf's ReaderTensor
    shape: tuple[int, ...]
    restore: Callable[[np.ndarray], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        import gguf

        try:
            array = gguf.dequantize(self.tensor.data, self.tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise UserError(f"the tensor {short(self.tensor.name)} cannot be read ({first_line(error)[:80]})") from None
        return np.asarray(self.restore(array), dtype=dtype)


def is_gguf(path: str | Path) -> bool:
    """Whether a path is to be read as a GGUF file."""
    return str(path).endswith(SUFFIX)


def read_gguf_config(path: Path) -> dict[str, Any]:
    """The config of a GGUF file, as the config.json of a Hugging Face folder.

    Raises `UserError` for a file that is not whole, for an architecture that is not supported, and for settings that
    no network here follows.
    """
    reader = _open(path)
    architecture = _architecture(reader, path)
    names = {tensor.name for tensor in reader.tensors}
    keys = _GPT2_KEYS if architecture == "gpt2" else _KEYS
    config = {ours: _value(reader, f"{architecture}.{key}") for key, ours in keys.items()}
    config |= {ours: _value(reader, f"tokenizer.ggml.{key}") for key, ours in _TOKENS.items()}
    rotated = _value(reader, f"{architecture}.rope.dimension_count")
    if architecture == "llama" and config["head_dim"] is None:
        config["head_dim"] = rotated
    end, end_of_turn = config["eos_token_id"], _value(reader, "tokenizer.ggml.eot_token_id")
    if end is not None and end_of_turn not in (None, end):
        config["eos_token_id"] = [end, end_of_turn]
    config = {key: value for key, value in config.items() if value is not None}
    config |= {"model_type": _MODEL_TYPES[architecture], "vocab_size": _vocabulary(reader, path)}
    if architecture == "gpt2":
        return config
    config |= {
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": architecture != "qwen2" and "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }
    if rotated is not None and "head_dim" in config and rotated != config["head_dim"]:
        raise UserError(
            f"{path}: rope.dimension_count is {rotated} and a head has {config['head_dim']}: rotary positions in a "
            "part of a head are not supported"
        )
    width, heads, layers = (config.get(key) for key in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    if architecture in _LARGE_GEMMA and "head_dim" in config:
        is_large = layers == _LARGE_GEMMA[architecture]
        config["query_pre_attn_scalar"] = width // heads if is_large and heads else config["head_dim"]
    return config | _rope_scaling(reader, config, path)


def open_gguf(path: Path) -> dict[str, GGUFTensor]:
    """Every tensor of a GGUF file under its name on Hugging Face, not yet read. Raises `UserError` as above."""
    reader = _open(path)
    architecture = _architecture(reader, path)
    heads = _value(reader, f"{architecture}.attention.head_count") or 1
    rows = {"attn_q": heads, "attn_k": _value(reader, f"{architecture}.attention.head_count_kv") or heads}
    tensors = {}
    for tensor in reader.tensors:
        if tensor.name == _FREQUENCIES:
            continue  # see `_rope_scaling`
        shape = tuple(int(size) for size in reversed(tensor.shape))
        kind = tensor.name.rpartition(".")[0].rpartition(".")[2]
        restore: Callable[[np.ndarray], np.ndarray] = _same
        if architecture == "llama" and kind in rows:
            restore = partial(_unpermuted, heads=rows[kind])
        elif architecture.startswith("gemma") and kind.endswith("norm"):
            restore = _minus_one
        elif architecture == "gpt2" and len(shape) == 2 and kind.startswith(("attn", "ffn")):
            restore, shape = np.transpose, shape[::-1]
        tensors[_hf_name(architecture, tensor.name)] = GGUFTensor(tensor, shape, restore)
    return tensors


def _open(path: Path) -> Any:
    """A reader of the file. Raises `UserError` without the package `gguf` and for a file that is not whole."""
    try:
        import gguf
    except ImportError:
        raise UserError(
            f"{path}: reading GGUF files needs the package gguf, which is not installed: pip install 'jaxvalues[gguf]'"
        ) from None
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:  # whatever the bytes of another kind of file lead to
        raise UserError(f"{path} is not a whole GGUF file ({first_line(error)[:80]})") from None
    if (parts := _value(reader, "split.count") or 1) > 1:
        number = (_value(reader, "split.no") or 0) + 1
        raise UserError(
            f"{path} is part {number} of {parts} of a model: join them to one file with llama-gguf-split --merge"
        )
    return reader


def _architecture(reader: Any, path: Path) -> str:
    name = _value(reader, "general.architecture")
    if name not in _MODEL_TYPES:
        raise UserError(
            f"{path}: GGUF files of architecture {short(name)} are not supported, only {', '.join(_MODEL_TYPES)}"
        )
    return name


def _value(reader: Any, key: str) -> Any:
    """The value of a key; None where the file does not have it."""
    return reader.fields[key].contents() if key in reader.fields else None


def _vocabulary(reader: Any, path: Path) -> int:
    """The number V of word vectors, padded ones included."""
    found = next((int(t.shape[-1]) for t in reader.tensors if t.name == "token_embd.weight"), None)
    if found is None:
        raise UserError(f"{path}: the file holds no token_embd.weight, the word vectors of a network")
    return found


def _hf_name(architecture: str, name: str) -> str:
    """The name of a tensor on Hugging Face; one that is not known stays as it is, and is then not expected."""
    names = {"gpt2": _GPT2_NAMES}.get(architecture, _GEMMA_NAMES if architecture.startswith("gemma") else _NAMES)
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in names:
        return name
    layers = "transformer.h" if architecture == "gpt2" else "model.layers"
    return (f"{layers}.{match[1]}." if match[1] else "") + f"{names[match[2]]}.{match[3]}"


def _rope_scaling(reader: Any, config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How rotary positions are scaled: `linear`, or Llama 3's, of which the file holds the factor of each frequency."""
    architecture = _value(reader, "general.architecture")
    kind, factor = (_value(reader, f"{architecture}.rope.scaling.{key}") for key in ("type", "factor"))
    if kind not in (None, "none", "linear"):
        raise UserError(f"{path}: rope.scaling.type = {short(kind)} is not supported, only none and linear")
    stored = next((tensor for tensor in reader.tensors if tensor.name == _FREQUENCIES), None)
    if stored is None:
        return {"rope_scaling": {"rope_type": "linear", "factor": factor}} if kind == "linear" and factor else {}
    factors = np.asarray(GGUFTensor(stored, (), _same), np.float32)
    scaling = {"rope_type": "llama3", "factor": float(factors.max()), **_LLAMA3}
    theta = config.get("rope_theta", 10_000.0)
    expected = Rotary(theta).frequencies(2 * len(factors)) / Rotary(
        theta, "llama3", scaling["factor"], *_LLAMA3.values()
    ).frequencies(2 * len(factors))
    if not np.allclose(factors, expected, rtol=1e-3):
        raise UserError(
            f"{path}: {_FREQUENCIES} scales rotary positions otherwise than Llama 3, which is not supported"
        )
    return {"rope_scaling": scaling}


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _minus_one(x: np.ndarray) -> np.ndarray:
    return x - 1


def _unpermuted(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in the order of Hugging Face, from that of llama.cpp, where i and i + H / 2 are neighbours."""
    return x.reshape(heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
