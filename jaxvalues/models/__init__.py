"""Networks in Flax linen, their checkpoints, and the layout of their parameters."""

from jaxvalues.models.branches import Branches, Packed, pack
from jaxvalues.models.cache import Cache, empty_cache, repeat_cache
from jaxvalues.models.causal import CausalLM, build_causal_lm, init_causal_lm, load_causal_lm, save_causal_lm
from jaxvalues.models.classifier import Classifier, Outputs
from jaxvalues.models.layout import group, segments_for, ungroup
from jaxvalues.models.loading import (
    abstract_model,
    build_model,
    fetch,
    hub_name,
    init_model,
    load_model,
    read_config,
    save_model,
)
from jaxvalues.models.mlm import MaskedLM, build_masked_lm, init_masked_lm, load_masked_lm, save_masked_lm
from jaxvalues.models.sequence_classification import head_modules, head_settings, load_classifier, save_classifier
from jaxvalues.models.t5 import T5, Prefix, Prompt
from jaxvalues.models.t5_checkpoint import build_t5, init_t5, load_t5, save_t5, settled_config
from jaxvalues.models.weights import content_hash

__all__ = [
    "T5",
    "Branches",
    "Cache",
    "CausalLM",
    "Classifier",
    "MaskedLM",
    "Outputs",
    "Packed",
    "Prefix",
    "Prompt",
    "abstract_model",
    "build_causal_lm",
    "build_masked_lm",
    "build_model",
    "build_t5",
    "content_hash",
    "empty_cache",
    "fetch",
    "group",
    "head_modules",
    "head_settings",
    "hub_name",
    "init_causal_lm",
    "init_masked_lm",
    "init_model",
    "init_t5",
    "load_causal_lm",
    "load_classifier",
    "load_masked_lm",
    "load_model",
    "load_t5",
    "pack",
    "read_config",
    "repeat_cache",
    "save_causal_lm",
    "save_classifier",
    "save_masked_lm",
    "save_model",
    "save_t5",
    "segments_for",
    "settled_config",
    "ungroup",
]
