"""Networks in Flax linen, their checkpoints, and the layout of their parameters."""

from jaxvalues.models.checkpoints.sequence_classification import (
    head_from_modules,
    head_modules,
    head_settings,
    load_classifier,
    save_classifier,
)
from jaxvalues.models.checkpoints.weights import content_hash, open_tensors
from jaxvalues.models.heads.causal_lm import CausalLM, build_causal_lm, init_causal_lm, load_causal_lm, save_causal_lm
from jaxvalues.models.heads.classifier import Classifier, Outputs
from jaxvalues.models.heads.masked_lm import (
    MaskedLM,
    build_masked_lm,
    init_masked_lm,
    load_masked_lm,
    masked_lm_settings,
    save_masked_lm,
)
from jaxvalues.models.layers.branches import Branches, Packed, pack
from jaxvalues.models.layers.cache import Cache, append, as_prefix, empty_cache, repeat_cache
from jaxvalues.models.layers.layout import group, segments_for, ungroup
from jaxvalues.models.loading import (
    abstract_model,
    build_model,
    fetch,
    fetch_config,
    fetch_tokenizer,
    hub_commit,
    hub_name,
    init_model,
    load_model,
    read_config,
    save_model,
    tokenizer_folder,
)
from jaxvalues.models.t5.checkpoint import build_t5, check_config, checkpoint_config, init_t5, load_t5, save_t5
from jaxvalues.models.t5.model import T5, Prefix, Prompt

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
    "append",
    "as_prefix",
    "build_causal_lm",
    "build_masked_lm",
    "build_model",
    "build_t5",
    "check_config",
    "checkpoint_config",
    "content_hash",
    "empty_cache",
    "fetch",
    "fetch_config",
    "fetch_tokenizer",
    "group",
    "head_from_modules",
    "head_modules",
    "head_settings",
    "hub_commit",
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
    "masked_lm_settings",
    "open_tensors",
    "pack",
    "read_config",
    "repeat_cache",
    "save_causal_lm",
    "save_classifier",
    "save_masked_lm",
    "save_model",
    "save_t5",
    "segments_for",
    "tokenizer_folder",
    "ungroup",
]
