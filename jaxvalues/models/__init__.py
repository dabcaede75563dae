"""Networks in Flax linen, their checkpoints, and the layout of their parameters."""

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
from jaxvalues.models.sequence_classification import load_classifier, save_classifier
from jaxvalues.models.t5 import T5, Prefix, Prompt
from jaxvalues.models.t5_checkpoint import build_t5, init_t5, load_t5, save_t5
from jaxvalues.models.weights import content_hash

__all__ = [
    "T5",
    "Classifier",
    "MaskedLM",
    "Outputs",
    "Prefix",
    "Prompt",
    "abstract_model",
    "build_masked_lm",
    "build_model",
    "build_t5",
    "content_hash",
    "fetch",
    "group",
    "hub_name",
    "init_masked_lm",
    "init_model",
    "init_t5",
    "load_classifier",
    "load_masked_lm",
    "load_model",
    "load_t5",
    "read_config",
    "save_classifier",
    "save_masked_lm",
    "save_model",
    "save_t5",
    "segments_for",
    "ungroup",
]
