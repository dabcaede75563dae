"""Tuning methods: which parameters train, and how they enter the network."""

from __future__ import annotations

from collections.abc import Callable

from jaxvalues.config import TuningConfig
from jaxvalues.errors import ConfigError
from jaxvalues.tuning.ia3 import IA3
from jaxvalues.tuning.initializers import make_initializer
from jaxvalues.tuning.lora import LoRA
from jaxvalues.tuning.method import Bound, Params, Stack, Target, Tuning
from jaxvalues.tuning.prefix import PrefixTuning
from jaxvalues.tuning.prompts import PromptTuning, PTuning, ResidualPromptTuning
from jaxvalues.tuning.weights import BitFit, Full, Head, LastLayers, Norms, NoTuning

__all__ = ["Bound", "Params", "Stack", "Target", "Tuning", "make_tuning"]


def make_tuning(config: TuningConfig, target: Target) -> Tuning:
    """The tuning method of a config for a system. Raises ConfigError for a method that the system does not support."""
    return _METHODS[config.method](config, target)


def _prompt(config: TuningConfig, target: Target) -> Tuning:
    sides, initializer = _sides(config, target, ("encoder",)), make_initializer(config, target)
    if config.reparameterization != "residual":
        return PromptTuning(target, sides, initializer)
    return ResidualPromptTuning(target, sides, initializer, config.reparameterization_size or target.word_size)


def _p_tuning(config: TuningConfig, target: Target) -> Tuning:
    size, recurrent = config.reparameterization_size or target.word_size, config.reparameterization == "lstm"
    return PTuning(target, _sides(config, target, ("encoder",)), make_initializer(config, target), size, recurrent)


def _prefix(config: TuningConfig, target: Target) -> Tuning:
    sides = _sides(config, target, tuple(target.stacks))
    size = config.reparameterization_size or target.word_size if config.reparameterization == "mlp" else None
    return PrefixTuning(target, sides, config.length, config.init_range, size)


_METHODS: dict[str, Callable[[TuningConfig, Target], Tuning]] = {
    "full": lambda config, target: Full(),
    "last_layers": lambda config, target: LastLayers(target, config.layers),
    "head": lambda config, target: Head(target),
    "bitfit": lambda config, target: BitFit(target),
    "norms": lambda config, target: Norms(target),
    "prompt": _prompt,
    "p_tuning": _p_tuning,
    "prefix": _prefix,
    "lora": lambda config, target: LoRA(target, config.rank, config.alpha, config.targets, config.lora_dropout),
    "ia3": lambda config, target: IA3(target, config.targets),
    "none": lambda config, target: NoTuning(target),
}


def _sides(config: TuningConfig, target: Target, default: tuple[str, ...]) -> tuple[str, ...]:
    """The stacks of attention layers that get a prompt or a prefix, without repetitions."""
    sides = tuple(dict.fromkeys(config.sides or default))
    unknown = [side for side in sides if side not in target.stacks]
    if unknown:
        raise ConfigError(
            f"tuning.sides: a {target.model_type} model has no {' or '.join(unknown)}, only {', '.join(target.stacks)}"
        )
    return sides
