"""T5 from and to Hugging Face's checkpoints, or with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvalues.errors import UserError, about
from jaxvalues.models.architectures import architecture_of
from jaxvalues.models.checkpoints.conversion import Rule, Table, to_tensors, transpose
from jaxvalues.models.checkpoints.place import PlaceLike
from jaxvalues.models.checkpoints.tied import is_own
from jaxvalues.models.checkpoints.weights import open_tensors
from jaxvalues.models.heads.causal_lm import untied_where_held
from jaxvalues.models.layers.layout import segments_for
from jaxvalues.models.loading import (
    compute_dtype,
    is_scanned,
    load_checkpoint,
    random_params,
    read_config,
    save_checkpoint,
)
from jaxvalues.models.model_types import LLAMA
from jaxvalues.models.t5.config import T5Config
from jaxvalues.models.t5.model import T5

HEAD = "lm_head.weight"
WORDS = "shared.weight"
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of the words, in old files


def build_t5(
    config: Mapping[str, Any],
    *,
    dtype: str = "float32",
    scan: bool | str = "auto",
    remat: bool = False,
    dropout: float | None = None,
) -> T5:
    """The T5 that the contents of a config.json describe, without parameters.

    The options are those of `build_model`; `dropout` replaces the config's rate.
    """
    if config.get("model_type") != "t5":
        raise UserError(f"model_type {config.get('model_type')!r} is not supported here, only 't5'")
    network = T5Config.from_hf(config)
    if dropout is not None:
        network = dataclasses.replace(network, dropout_rate=dropout)
    segments = (segments_for(layers, is_scanned(scan)) for layers in (network.num_layers, network.num_decoder_layers))
    return T5(network, *segments, dtype=compute_dtype(dtype), remat=remat)


def init_t5(config: Mapping[str, Any], rng: jax.Array | int = 0, **options: Any) -> tuple[T5, dict[str, Any]]:
    """A T5 with random weights, `(module, params)`, drawn as Hugging Face draws them; see `init_model`."""
    module = build_t5(config, **options)
    return module, random_params(module, rng)


def load_t5(
    path_or_name: str | Path, *, revision: str | None = None, place: PlaceLike = None, **options: Any
) -> tuple[T5, dict[str, Any]]:
    """A pretrained T5, `(module, params)`; see `load_model`.

    The tensors decide whether the output matrix is tied: transformers 5 writes `tie_word_embeddings` = true for every
    model.
    """

    def make(config: dict[str, Any], tensors: Mapping[str, Any]) -> tuple[T5, Table]:
        for copy in _COPIES:
            if is_own(tensors, copy, (WORDS, *_COPIES)):
                raise UserError(f"{copy} of {path_or_name} differs from {WORDS}: only shared embeddings are supported")
        module = build_t5(_as_held(config, tensors), **options)
        return module, t5_table(module.config, tensors)

    return load_checkpoint(path_or_name, make, revision, place)


def checkpoint_config(folder: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint folder's config.json, of any architecture; for a T5 and the Llama family with
    `tie_word_embeddings` as in the weights."""
    config = read_config(folder)
    match config.get("model_type"):
        case "t5":
            return _as_held(config, open_tensors(Path(folder)))
        case str(model_type) if model_type in LLAMA:
            return untied_where_held(config, open_tensors(Path(folder)))
    return config


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Raise `UserError`, which begins with `where`, for a config.json that no network here can follow.

    A random network takes its vocabulary from its tokenizer, so `vocab_size` may be missing.
    """
    with about(where):
        given = {"vocab_size": 1, **config}
        if config.get("model_type") == "t5":
            T5Config.from_hf(given)
        else:
            architecture_of(given).config.from_hf(given)


def save_t5(folder: str | Path, config: Mapping[str, Any], params: Any) -> None:
    """Write a T5 as the Hugging Face checkpoint that T5ForConditionalGeneration reads.

    `tie_word_embeddings` in its config.json follows `params`, not `config`.
    """
    content = {**config, "tie_word_embeddings": "head" not in params}
    network = T5Config.from_hf(content)
    content["scale_decoder_outputs"] = network.scale_decoder_outputs
    save_checkpoint(folder, content, t5_tensors(network, params))


def t5_tensors(config: T5Config, params: Any) -> dict[str, np.ndarray]:
    """The checkpoint of a T5's parameters, {name: array}, named as transformers names it."""
    return to_tensors(params, t5_table(config))


def t5_table(config: T5Config, names: Iterable[str] = (WORDS,)) -> Table:
    """The conversion table of a T5 whose checkpoint holds tensors of these `names`."""
    head = () if config.tie_word_embeddings else (Rule(HEAD, "head/embedding"),)
    copies = (*_COPIES, *((HEAD,) if config.tie_word_embeddings else ()))
    # Cross-attention has no distances, but old files hold a table for it.
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return Table(
        (Rule(_words(names), "embeddings/word/embedding"), *head, *_side("encoder", config), *_side("decoder", config)),
        ignorable=tuple(name.replace(".", r"\.") for name in (*copies, unused)),
    )


def _side(side: str, config: T5Config) -> Iterable[Rule]:
    """The rules of the encoder or the decoder."""
    block, layer = f"{side}.block.{{i}}.layer", f"{side}/layers/{{i}}"
    parts = ["attention", "mlp"] if side == "encoder" else ["attention", "cross_attention", "mlp"]
    feed_forward = {"wi_0": "gate", "wi_1": "up"} if config.is_gated else {"wi": "up"}
    inside = {
        "attention": ("SelfAttention", {"q": "query", "k": "key", "v": "value", "o": "output"}),
        "cross_attention": ("EncDecAttention", {"q": "query", "k": "key", "v": "value", "o": "output"}),
        "mlp": ("DenseReluDense", {**feed_forward, "wo": "down"}),
    }
    for number, part in enumerate(parts):
        module, matrices = inside[part]
        for theirs, ours in matrices.items():
            hf = f"{block}.{number}.{module}.{theirs}.weight"
            yield Rule(hf, f"{layer}/{part}/{ours}/kernel", transpose, transpose)
        yield Rule(f"{block}.{number}.layer_norm.weight", f"{layer}/{part}_norm/scale")
    first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Rule(first, f"{side}/relative_bias/embedding")
    yield Rule(f"{side}.final_layer_norm.weight", f"{side}/norm/scale")


def _as_held(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with `tie_word_embeddings` as in the weights: tied are those that hold no output matrix, or a copy
    of the word embeddings. transformers scales logits by what the file says, so that stays."""
    said = config.get("tie_word_embeddings") is not False
    tied = HEAD not in tensors or (said and not is_own(tensors, HEAD, (WORDS, *_COPIES)))
    scale = {} if tied == said or config.get("scale_decoder_outputs") is not None else {"scale_decoder_outputs": said}
    return {**config, "tie_word_embeddings": tied, **scale}


def _words(names: Iterable[str]) -> str:
    """The name of the word embeddings; some files hold them only under the name of a copy."""
    names = set(names)
    return next((name for name in (WORDS, *_COPIES) if name in names), WORDS)
