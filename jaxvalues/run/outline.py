"""What a config describes, before anything runs: its network without weights, its data where they are here."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxvalues.config import Config
from jaxvalues.config.data import DataConfig
from jaxvalues.data.held_out import Parts, load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import AnyTemplate, load_texts
from jaxvalues.models import checkpoint_config, fetch_config, hub_name
from jaxvalues.run.base import NO_NETWORK, Base, find_tokenizer, fit_to_tokenizer
from jaxvalues.run.network import Network, build_network


class Outline(NamedTuple):
    """A network without weights, the data (None where they would have to be downloaded), and the template."""

    network: Network
    parts: Parts | None
    texts: AnyTemplate


def outline(config: Config) -> Outline:
    """The outline of a run. Reads no weights and downloads no data; of a checkpoint on the hub it reads config.json."""
    if config.model.endpoint is not None:
        raise ConfigError(NO_NETWORK)
    texts, parts = load_texts(config.formulation, TASKS[config.data.task]), parts_here(config.data)
    return Outline(build_network(config, _hf_config(config, parts, texts)), parts, texts)


def parts_here(config: DataConfig) -> Parts | None:
    """The data of a config; None where they would have to be downloaded."""
    if config.dir is None and config.source == "touche23":
        from jaxvalues.data.touche23_value_eval.prepared import is_prepared

        if not is_prepared():
            return None
    return load_parts(config)


def _hf_config(config: Config, parts: Parts | None, texts: AnyTemplate) -> dict[str, Any]:
    """The network's config as `train` makes it, without its weights."""
    model = config.model
    if model.config is None:
        is_remote = hub_name(model.path) is not None
        return fetch_config(model.path, model.revision) if is_remote else checkpoint_config(model.path)
    if model.train_tokenizer is not None and parts is None:
        return {"vocab_size": model.train_tokenizer.vocab_size, **model.config}
    base = Base(dict(model.config), None, "")
    tokenizer = find_tokenizer(config, base, None if parts is None else parts.full_training, texts)
    return fit_to_tokenizer(base.hf_config, tokenizer, is_random=True)
