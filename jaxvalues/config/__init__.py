"""Config files: `schema` defines their keys, one class per section, `files` reads them, `reference` documents them."""

from jaxvalues.config.data import DataConfig
from jaxvalues.config.files import json_schema, load_config, parse_config, runs_of
from jaxvalues.config.formulation import (
    GENERATED,
    ExamplesConfig,
    FormulationConfig,
    GenerationConfig,
    PoolingConfig,
    ShortlistConfig,
    VerbalizerConfig,
)
from jaxvalues.config.loss import ContrastiveConfig, LossConfig
from jaxvalues.config.model import ModelConfig, TokenizerTraining
from jaxvalues.config.reference import markdown_reference
from jaxvalues.config.remote import RemoteConfig
from jaxvalues.config.schema import (
    Config,
    DecisionConfig,
    EnsembleConfig,
    LoggingConfig,
    MeshConfig,
    OptimizerConfig,
    RuntimeConfig,
    TrainingConfig,
)
from jaxvalues.config.section import Section, check_no_url
from jaxvalues.config.tuning import LEARNING_RATES, TuningConfig

__all__ = [
    "GENERATED",
    "LEARNING_RATES",
    "Config",
    "ContrastiveConfig",
    "DataConfig",
    "DecisionConfig",
    "EnsembleConfig",
    "ExamplesConfig",
    "FormulationConfig",
    "GenerationConfig",
    "LoggingConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PoolingConfig",
    "RemoteConfig",
    "RuntimeConfig",
    "Section",
    "ShortlistConfig",
    "TokenizerTraining",
    "TrainingConfig",
    "TuningConfig",
    "VerbalizerConfig",
    "check_no_url",
    "json_schema",
    "load_config",
    "markdown_reference",
    "parse_config",
    "runs_of",
]
