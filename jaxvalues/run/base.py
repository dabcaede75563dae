"""The checkpoint a run starts from, and its tokenizer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvalues.config import Config, ModelConfig
from jaxvalues.data.arguments import Split
from jaxvalues.data.tokenizers import (
    check_known,
    load_tokenizer,
    needed_embeddings,
    pad_id,
    train_tokenizer,
    vocabulary_size,
)
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import AnyTemplate, training_texts
from jaxvalues.models import (
    check_config,
    checkpoint_config,
    content_hash,
    fetch,
    fetch_tokenizer,
    hub_commit,
    tokenizer_folder,
)
from jaxvalues.training.processes import from_main

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NO_NETWORK = "model.endpoint names a model that is served elsewhere, and this needs a network here: set model.path"
CHECKED = 200
"""The number of arguments on which a loaded tokenizer is checked."""


@dataclass(frozen=True)
class Base:
    """The weights a run starts from: a checkpoint folder, or random ones from a Hugging Face config."""

    hf_config: dict[str, Any]
    folder: Path | None
    identity: str  # content hash of the weights, or what they are drawn from
    commit: str | None = None  # of the hub, where it was downloaded from there

    @property
    def is_random(self) -> bool:
        return self.folder is None


def find_base(config: ModelConfig, seed: int) -> Base:
    """Find (or download) the checkpoint that the config names.

    Raises UserError when it cannot be had, and for a config.json that no network here can follow.
    """
    if config.endpoint is not None:
        raise ConfigError(NO_NETWORK)
    if config.config is not None:
        _check_spelling(config.config)
        check_config(config.config, "model.config")
        return Base(dict(config.config), None, f"random weights, seed {seed}")
    folder = fetch(config.path, config.revision)
    hf_config = checkpoint_config(folder)
    check_config(hf_config, str(folder))
    identity = from_main("hashing the weights", lambda: content_hash(folder))  # of one process: they are large
    return Base(hf_config, folder, identity, hub_commit(folder))


def _check_spelling(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key of `model.config` that no network of its type has, and that resembles one that it
    has."""
    from transformers import CONFIG_MAPPING

    if (model_type := config.get("model_type")) not in CONFIG_MAPPING:
        return  # which `check_config` refuses
    kind = CONFIG_MAPPING[model_type]
    known = {*kind().to_dict(), *kind.attribute_map}
    for key in config:
        if key not in known and (near := difflib.get_close_matches(key, known, n=1, cutoff=0.82)):
            raise ConfigError(f"model.config: unknown key `{key}`, did you mean `{near[0]}`?")


def find_tokenizer(config: Config, base: Base, train: Split | None, template: AnyTemplate) -> PreTrainedTokenizerBase:
    """The tokenizer that the config names, or the checkpoint's own, or one trained on the texts of `train`.

    That is the whole training split, before anything is held out: a tokenizer learns from no labels, and so all folds
    have the same one, and a network of the same size. A loaded one is checked on some of these texts. Raises UserError
    for one that cannot be loaded, or does not fit them.
    """
    model = config.model
    if model.train_tokenizer is not None:
        texts = training_texts(config.formulation, template, train.arguments)
        return train_tokenizer(texts, model.train_tokenizer.vocab_size, config.data.max_length)
    tokenizer = own_tokenizer(model, base.folder)
    if train is not None:
        some, source = train.arguments[:CHECKED], model.tokenizer or str(base.folder)
        check_known(tokenizer, (text for one in some for text in (one.conclusion, one.premise)), source)
    return tokenizer


def own_tokenizer(model: ModelConfig, folder: Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer that `model.tokenizer` names, or else that of the checkpoint `folder`.

    Raises UserError for one that cannot be loaded.
    """
    named, revision = model.tokenizer, model.tokenizer_revision
    return load_tokenizer(tokenizer_folder(folder) if named is None else fetch_tokenizer(named, revision))


def fit_to_tokenizer(hf_config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, is_random: bool) -> dict[str, Any]:
    """The network's config, checked against the tokenizer; a random network takes sizes it does not give from it."""
    if is_random:
        hf_config = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": pad_id(tokenizer), **hf_config}
    if (size := needed_embeddings(tokenizer)) > hf_config.get("vocab_size", 0):
        raise ConfigError(
            f"the tokenizer has {size} tokens and the model only {hf_config.get('vocab_size')} embeddings: "
            "they do not belong together"
        )
    return hf_config
