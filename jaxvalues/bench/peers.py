"""The peers that jaxvalues is compared with, and the configs that they can run."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from jaxvalues.bench.task import APART, BF16, GATHER, GENERATION, PEFT, PEFTS, TRANSFORMERS
from jaxvalues.config import Config
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations import CAUSAL, SEQ2SEQ

TORCH = ("torch-eager", "torch-compile", "torch" + BF16)
PEERS = (*TORCH, *PEFTS, TRANSFORMERS, APART, GATHER, "none")


def default_peers(config: Config, generates: bool = False) -> tuple[str, ...]:
    """The default peer of a formulation: torch for classifiers, PEFT for question formulations; to generate text,
    transformers."""
    if generates:
        return (TRANSFORMERS,)
    return (PEFT,) if config.formulation.asks_questions else TORCH[:1]


def missing_packages(peers: Sequence[str]) -> list[str]:
    """The packages that these peers need and that are not installed."""
    outside = [peer for peer in peers if peer in (*TORCH, *PEFTS, TRANSFORMERS)]
    needed = ["torch"] * bool(outside) + ["peft"] * any(peer in PEFTS for peer in outside)
    return [package for package in needed if importlib.util.find_spec(package) is None]


def check_generation(config: Config, model_type: str, work: Sequence[str], peers: Sequence[str]) -> None:
    """Raise UserError if a peer that generates text is not installed, ConfigError if it does other `work`, or if the
    model generates none. Work without GENERATION needs no such peer."""
    generates = [one for one in work if one in GENERATION]
    if generates and len(generates) < len(work):
        raise ConfigError(f"--work {generates[0]} is measured by itself: generating text and steps have other peers")
    if not generates:
        if TRANSFORMERS in peers:
            raise ConfigError(f"--peer {TRANSFORMERS} generates text: use --work {' or '.join(GENERATION)}")
        return
    if model_type not in CAUSAL + SEQ2SEQ:
        raise ConfigError(f"--work {generates[0]} needs a generative model, and {model_type} is none")
    if wrong := [peer for peer in peers if peer != TRANSFORMERS]:
        raise ConfigError(f"--peer {wrong[0]} generates no text: use --peer {TRANSFORMERS} or none")
    for package in missing_packages(peers):
        raise UserError(
            f"the peer needs {package}: pip install 'jaxvalues[parity]', or measure jaxvalues alone (--peer none)"
        )
    if peers and config.tuning.method not in ("none", "full"):
        raise ConfigError(
            f"tuning.method is {config.tuning.method}, but the peer has the checkpoint alone: use none, or --peer none"
        )


def check_comparable(config: Config, peers: Sequence[str]) -> None:
    """Raise UserError if a peer is not installed, ConfigError if it does not do the same work with this config."""
    if config.data.task != "values":
        raise ConfigError(f"data.task is {config.data.task}, but bench measures the task values only")
    if APART in peers and any(peer in PEFTS for peer in peers):
        raise ConfigError(f"--peer {PEFT} needs one question per argument and --peer {APART} twenty: name one of them")
    if APART in peers and config.training.accumulation != 1:
        raise ConfigError(f"training.accumulation must be 1: --peer {APART} finds its own micro-batches")
    outside = [peer for peer in peers if peer in (*TORCH, *PEFTS)]
    for package in missing_packages(peers):
        raise UserError(
            f"the peer needs {package}: pip install 'jaxvalues[parity]', or measure jaxvalues alone (--peer none)"
        )
    for peer in outside:
        if peer in PEFTS:
            _check_prompts(config)
        elif config.formulation.asks_questions:
            raise ConfigError(
                f"formulation.kind is {config.formulation.kind}, but the peer {peer} is a classifier: "
                f"use --peer {PEFT}, {APART} or none"
            )
        elif config.tuning.method != "full":
            raise ConfigError(
                f"tuning.method is {config.tuning.method}, but the peer trains everything; use full, or --peer none"
            )
    if outside and config.training.accumulation != 1:
        raise ConfigError("training.accumulation must be 1 for the peer to do the same work; or use --peer none")
    if outside and (config.optimizer.schedule != "cosine" or config.optimizer.layer_decay != 1):
        raise ConfigError("the peer has a cosine schedule and no layer decay: use those, or --peer none")


def _check_prompts(config: Config) -> None:
    """Raise ConfigError unless the config is prompt tuning with one word for yes and one for no."""
    form, tuning = config.formulation, config.tuning
    if form.kind != "answer" or form.verbalizer.soft or len((*form.verbalizer.yes, *form.verbalizer.no)) != 2:
        raise ConfigError(
            f"--peer {PEFT} has one word for yes and one for no: use formulation.kind answer with such a "
            "verbalizer, or --peer none"
        )
    if tuning.method != "prompt" or (tuning.sides or ("encoder",)) != ("encoder",):
        raise ConfigError(f"--peer {PEFT} trains a prompt before the input: use tuning.method prompt, or --peer none")
    if config.loss.kind != "bce" or config.loss.label_smoothing:
        raise ConfigError(f"--peer {PEFT} minimises binary cross-entropy: use loss.kind bce, or --peer none")


def check_relative_attention(hf_config: dict[str, Any], peers: Sequence[str]) -> None:
    """Raise ConfigError if `jaxvalues-gather` is a peer and the model has no relative attention."""
    if GATHER in peers and not hf_config.get("relative_attention"):
        raise ConfigError(f"--peer {GATHER} compares forms of relative attention, but this model has none")
