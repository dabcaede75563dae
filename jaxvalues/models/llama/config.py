"""The config of the Llama family: Llama 2 and 3, SmolLM, Mistral, Qwen 2, 2.5 and 3, Gemma 2 and 3 (text)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvalues.errors import UserError, short
from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.llama.rotary import Rotary, read_rotary
from jaxvalues.models.model_types import GEMMA, QWEN

# Hugging Face's names of our fields.
_NAMES = {"attention_dropout": "attention_probs_dropout_prob"}
_GEMMA_NAMES = {**_NAMES, "hidden_activation": "hidden_act"}
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_DEFAULTS: dict[str, dict[str, Any]] = {  # transformers' of the keys that a saved config.json leaves out
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {
        "max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096,
    },
    "gemma2": {
        "max_position_embeddings": 8192, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {"max_position_embeddings": 131_072},
}  # fmt: skip
_GEMMA_DEFAULTS = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256,
    "sliding_window": 4096, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True,
}  # fmt: skip


class LayerKind(NamedTuple):
    """What layers may differ in: the `window` W of positions that a token sees (itself and the W - 1 before it; None:
    all), and the rotary positions."""

    window: int | None
    rotary: Rotary


@dataclasses.dataclass(frozen=True)
class LlamaConfig(TransformerConfig):
    """The sizes and choices of a network of the Llama family; names and defaults are Hugging Face's.

    `kinds` are the different kinds of layers, `kind_of_layer` [L] the index of each layer's. `qkv_bias`, `output_bias`
    and `mlp_bias` say which dense layers have biases, `qk_norm` whether queries and keys of a head are normalised.
    `gemma` norms have a scale of 1 + their parameter; there is one before and one after each block, and word vectors
    are multiplied by the root of D. `query_scale` multiplies queries.
    """

    hidden_act: str = "silu"
    hidden_dropout_prob: float = 0.0  # of the output of each block; Hugging Face has none
    attention_probs_dropout_prob: float = 0.0
    num_key_value_heads: int = 1
    head_dim: int = 64
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    gemma: bool = False
    query_scale: float = 1.0
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    kinds: tuple[LayerKind, ...] = (LayerKind(None, Rotary()),)
    kind_of_layer: tuple[int, ...] = ()

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Read the contents of a config.json; raises `UserError` for what is missing or not supported."""
        model_type = config.get("model_type")
        given = _with_defaults(config, model_type)
        names = {ours: theirs for theirs, ours in _names(model_type).items() if config.get(theirs) is not None}
        derived: dict[str, Any] = {
            "qkv_bias": model_type == "qwen2" or given.get("attention_bias", False),
            "output_bias": model_type != "qwen2" and given.get("attention_bias", False),
            "mlp_bias": model_type == "llama" and given.get("mlp_bias", False),
            "qk_norm": model_type in ("qwen3", "gemma3_text"),
            "gemma": model_type in GEMMA,
            "query_scale": 1.0,
            "kinds": (),
            "kind_of_layer": (),
        }
        if model_type not in GEMMA:
            derived |= {"attn_logit_softcapping": None, "final_logit_softcapping": None}
        supported: dict[str, Any] = {"use_bidirectional_attention": False, "is_causal": True}
        if model_type == "gemma3_text":
            supported["attn_logit_softcapping"] = None  # transformers has the setting and does not follow it
            _refuse_set(given, "attn_logit_softcapping", model_type)
        c = cls.read({**given, **derived}, supported, names)
        if c.num_attention_heads % c.num_key_value_heads:
            raise UserError(
                f"num_attention_heads {c.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{c.num_key_value_heads} in config.json"
            )
        if c.head_dim % 2:
            raise UserError(f"head_dim {c.head_dim} in config.json is odd, but rotary positions turn pairs")
        scalar = given.get("query_pre_attn_scalar") if c.gemma else c.head_dim
        if type(scalar) not in (int, float) or not scalar > 0:
            raise UserError(f"query_pre_attn_scalar = {short(scalar)} in config.json, expected a positive number")
        each = _layer_kinds(given, c)
        kinds = tuple(dict.fromkeys(each))
        return dataclasses.replace(
            c, query_scale=float(scalar) ** -0.5, kinds=kinds, kind_of_layer=tuple(kinds.index(kind) for kind in each)
        )

    @property
    def head_size(self) -> int:
        return self.head_dim

    @property
    def key_value_heads(self) -> int:
        return self.num_key_value_heads

    @property
    def word_scale(self) -> float:
        return self.hidden_size**0.5 if self.gemma else 1.0


def _names(model_type: str | None) -> dict[str, str]:
    return _GEMMA_NAMES if model_type in GEMMA else _NAMES


def _with_defaults(config: Mapping[str, Any], model_type: str | None) -> dict[str, Any]:
    """The settings of a config.json under our names, with transformers' defaults; null is a value for a window."""
    nullable = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
    names, unread = _names(model_type), "hidden_act" if model_type in GEMMA else None  # old files of Gemma have both
    given = {
        names.get(key, key): value
        for key, value in config.items()
        if key != unread and (value is not None or key in nullable)
    }
    given = {**(_GEMMA_DEFAULTS if model_type in GEMMA else {}), **_DEFAULTS.get(model_type, {}), **given}
    heads, width = given.get("num_attention_heads"), given.get("hidden_size")
    if config.get("num_key_value_heads", 1) is None:
        del given["num_key_value_heads"]  # as many as there are heads, whatever the default
    if type(heads) is int and type(width) is int and heads > 0:
        given.setdefault("head_dim", max(width // heads, 1))
        given.setdefault("num_key_value_heads", heads)
    return given


def _refuse_set(given: Mapping[str, Any], key: str, model_type: str | None) -> None:
    if given.get(key) is not None:
        raise UserError(f"{key} = {short(given[key])} is not supported for {model_type} models, only null")


def _layer_kinds(given: Mapping[str, Any], c: LlamaConfig) -> list[LayerKind]:
    """The kind of each layer."""
    window = given.get("sliding_window")
    if window is not None and (type(window) is not int or window < 1):
        raise UserError(f"sliding_window = {short(window)} in config.json, expected a positive whole number or null")
    types = _layer_types(given, c, window)
    if _LOCAL in types and window is None:
        raise UserError(f"layer_types of the {c.model_type} model has {_LOCAL}, but sliding_window is null")
    rotary = _rotaries(given, c)
    return [LayerKind(window if kind == _LOCAL else None, rotary[kind]) for kind in types]


def _layer_types(given: Mapping[str, Any], c: LlamaConfig, window: int | None) -> list[str]:
    """`sliding_attention` or `full_attention` for each layer."""
    layers = range(c.num_layers)
    match c.model_type:
        case "llama":
            return [_GLOBAL] * c.num_layers
        case "mistral" if given.get("layer_types") is None:
            return [_GLOBAL if window is None else _LOCAL] * c.num_layers
    if (types := given.get("layer_types")) is not None:
        if not isinstance(types, list) or len(types) != c.num_layers or set(types) - {_LOCAL, _GLOBAL}:
            raise UserError(f"layer_types in config.json, expected {c.num_layers} entries, each {_LOCAL} or {_GLOBAL}")
        if c.model_type in QWEN and not given.get("use_sliding_window", False) and _LOCAL in types:
            raise UserError(f"layer_types of the {c.model_type} model has {_LOCAL}, but use_sliding_window is false")
        return types
    if c.model_type in QWEN:
        first = given.get("max_window_layers", 28) if given.get("use_sliding_window", False) else c.num_layers
        return [_LOCAL if window is not None and i >= first else _GLOBAL for i in layers]
    every = 2 if c.model_type == "gemma2" else given.get("sliding_window_pattern", 6)
    if type(every) is not int or every < 1:
        raise UserError(f"sliding_window_pattern = {short(every)} in config.json, expected a positive whole number")
    return [_LOCAL if (i + 1) % every else _GLOBAL for i in layers]


def _rotaries(given: Mapping[str, Any], c: LlamaConfig) -> dict[str, Rotary]:
    """The rotary positions of each type of layer."""
    length = c.max_position_embeddings
    key = "rope_parameters" if given.get("rope_scaling") is None else "rope_scaling"
    content, is_gemma3 = given.get(key), c.model_type == "gemma3_text"
    theta = given.get("rope_theta", 1_000_000.0 if is_gemma3 else 10_000.0)
    nested = isinstance(content, Mapping) and {_LOCAL, _GLOBAL} & content.keys()
    if nested:
        parts = {kind: (content.get(kind), f"{key}.{kind}") for kind in (_LOCAL, _GLOBAL)}
    else:
        parts = {_GLOBAL: (content, key), _LOCAL: (None if is_gemma3 else content, key)}
    local = given.get("rope_local_base_freq", 10_000.0) if is_gemma3 else theta
    thetas = {_GLOBAL: theta, _LOCAL: local}
    return {kind: read_rotary(part, thetas[kind], length, c.model_type, name) for kind, (part, name) in parts.items()}
