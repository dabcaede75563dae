"""Networks in Flax linen, their checkpoints, and the layout of their parameters."""

from jaxvalues.models.branches import Packed, pack
from jaxvalues.models.cache import Cache, empty_cache, repeat_cache
from jaxvalues.models.causal import CausalLM, build_causal_lm, init_causal_lm, load_causal_lm, save_causal_lm
from jaxvalues.models.classifier import Classifier, Outputs
from jaxvalues.models.layout import group, segments_for, ungroup
from jaxvalues.models.loading import abstract_model, build_model, fetch, init_model, load_model, read_config, save_model
from jaxvalues.models.mlm import MaskedLM, build_masked_lm, init_masked_lm, load_masked_lm, save_masked_lm
from jaxvalues.models.weights import content_hash

__all__ = [
    "Cache",
    "CausalLM",
    "Classifier",
    "MaskedLM",
    "Outputs",
    "Packed",
    "abstract_model",
    "build_causal_lm",
    "build_masked_lm",
    "build_model",
    "content_hash",
    "empty_cache",
    "fetch",
    "group",
    "init_causal_lm",
    "init_masked_lm",
    "init_model",
    "load_causal_lm",
    "load_masked_lm",
    "load_model",
    "pack",
    "read_config",
    "repeat_cache",
    "save_causal_lm",
    "save_masked_lm",
    "save_model",
    "segments_for",
    "ungroup",
]
