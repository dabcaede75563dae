"""Config files: `schema` says what may stand in one, a section a class, and `files` reads it."""

from jaxvalues.config.files import json_schema, load_config, parse_config, runs_of
from jaxvalues.config.formulation import FormulationConfig, PoolingConfig, VerbalizerConfig
from jaxvalues.config.schema import (
    Config,
    ContrastiveConfig,
    DataConfig,
    DecisionConfig,
    EnsembleConfig,
    LoggingConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    TokenizerTraining,
    TrainingConfig,
)
from jaxvalues.config.section import Section
from jaxvalues.config.tuning import LEARNING_RATES, TuningConfig

__all__ = [
    "LEARNING_RATES",
    "Config",
    "ContrastiveConfig",
    "DataConfig",
    "DecisionConfig",
    "EnsembleConfig",
    "FormulationConfig",
    "LoggingConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PoolingConfig",
    "RuntimeConfig",
    "Section",
    "TokenizerTraining",
    "TrainingConfig",
    "TuningConfig",
    "VerbalizerConfig",
    "json_schema",
    "load_config",
    "parse_config",
    "runs_of",
]
