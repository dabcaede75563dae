"""The network of a config, without weights: its module, its tuning method, and the layer at which gradients stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxvalues.config import GENERATED, Config, ContrastiveConfig, TuningConfig
from jaxvalues.data.task import TASKS
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations import CAUSAL, SEQ2SEQ, check_kind
from jaxvalues.models import (
    Classifier,
    build_causal_lm,
    build_masked_lm,
    build_model,
    build_t5,
    load_causal_lm,
    load_masked_lm,
    load_model,
    load_t5,
)
from jaxvalues.models.checkpoints.place import PlaceLike
from jaxvalues.models.layers.layout import Grouping
from jaxvalues.models.layers.quantized import is_quantized, require_qwix
from jaxvalues.models.layers.stack import hidden_indices
from jaxvalues.run.resolve import resolve_dtype
from jaxvalues.tuning import Params, Stack, Target, Tuning, make_tuning

SOFT = "verbalizer"  # the key of a soft verbalizer's vectors


class Sizes(NamedTuple):
    """The sizes of a network, under the same names for every architecture."""

    model_type: str
    num_layers: int  # of encoder and decoder together
    hidden_size: int
    intermediate_size: int
    num_heads: int
    word_size: int  # width of the word vectors
    max_tokens: int


@dataclass(frozen=True, eq=False)
class Network:
    """A network without weights. `segments` says how its layers are grouped in the parameter tree."""

    module: nn.Module
    tuning: Tuning
    target: Target
    segments: Grouping
    sizes: Sizes
    dtype: jnp.dtype
    quantization: str | None  # of the frozen matrices of layers: "int8" or "int4"
    boundary: int  # the lowest layer that trains
    reuses_features: bool  # whether training starts from the output of the frozen layers, computed once
    read: Callable[[Path, PlaceLike], Params]  # reads those parameters that a checkpoint folder holds

    @property
    def num_layers(self) -> int:
        return self.sizes.num_layers

    def output_words(self, params: Params) -> jax.Array:
        """The output embeddings [V, E]: those of the input, except for T5 v1.1 and Flan, which have their own."""
        flat = flatten_dict(params, sep="/")
        return flat.get("head/embedding", flat[self.target.word_embedding])

    def init(self, rng: jax.Array) -> Params:
        """Random parameters. The vectors of a soft verbalizer are 0: they are set from words later."""
        ids = jnp.zeros((1, 1), jnp.int32)
        params = self.module.init(rng, ids, jnp.ones_like(ids))["params"]
        if SOFT in self.target.new_keys:
            params[SOFT] = {"embedding": jnp.zeros((2, self.sizes.word_size))}
        return params

    def abstract_parts(self) -> tuple[Params, Params]:
        """Shapes of (frozen, trainable), in trees that the caller may change."""
        return jax.tree.map(lambda shape: shape, self._abstract_parts)

    @property
    def trains(self) -> bool:
        """Whether anything trains."""
        return bool(jax.tree.leaves(self._abstract_parts[1]))

    @cached_property
    def abstract_params(self) -> Params:
        """Shapes of what `init` returns. Tracing a network takes a third of a second, so it is done once."""
        return jax.eval_shape(self.init, jax.random.key(0))

    @cached_property
    def _abstract_parts(self) -> tuple[Params, Params]:
        return jax.eval_shape(self.tuning.init, jax.random.key(0), self.abstract_params)


def build_network(
    config: Config,
    hf_config: dict[str, Any],
    encode: Callable[[str], list[int]] = lambda _: [0],
    *,
    gathers: bool = False,
) -> Network:
    """The network of a config for a checkpoint's `hf_config`.

    `encode` returns the token ids of a text, from which a prompt may start. If each layer `gathers` its weights, layers
    are scanned whatever the config says: XLA would gather the weights of all unrolled layers at once. Raises
    ConfigError for settings that do not fit the network.
    """
    model_type = hf_config.get("model_type")
    if config.model.quantization is not None:
        require_qwix()
    check_kind(config.formulation.kind, model_type)
    options = {
        "dtype": resolve_dtype(config.model.dtype),
        "scan": gathers or config.model.scan,
        "remat": config.model.remat,
    }
    if model_type in SEQ2SEQ:
        return _seq2seq(config, hf_config, {**options, "dropout": config.model.dropout}, encode)
    options |= {"hidden_dropout": config.model.dropout, "attention_dropout": config.model.dropout}
    options |= {"top_alone": gathers}
    c = build_model(hf_config, **options).config
    width = getattr(c, "word_size", c.hidden_size)
    heads = c.num_attention_heads
    sizes = Sizes(model_type, c.num_layers, c.hidden_size, c.intermediate_size, heads, width, c.max_tokens)
    stacks = {"encoder": Stack(c.num_layers, c.key_value_heads, c.head_size)}
    check_length(config, sizes)

    asks = config.formulation.asks_questions
    new = {SOFT} if config.formulation.verbalizer.soft else set()
    if not asks:
        new = {"head", "projection"} if _projection_size(config.loss.contrastive) else {"head"}
    words = "encoder/embeddings/word/embedding"
    target = Target(model_type, frozenset(new), words, width, stacks, encode, c.word_scale)
    tuning = make_tuning(config.tuning, target)
    boundary = tuning.boundary(c.num_layers)
    options |= {"boundary": boundary, "stop_gradient_below": boundary, "dropout_below": config.tuning.dropout_below}
    if asks:
        causal = model_type in CAUSAL
        module = (build_causal_lm if causal else build_masked_lm)(hf_config, **options)
        read, reuses = partial(_read_whole, load_causal_lm if causal else load_masked_lm, options), False
    else:
        module, reuses = _classifier(config, hf_config, options, boundary)
        read = partial(_read_encoder, options)
    encoder = module.encoder
    return Network(
        module,
        tuning,
        target,
        encoder.segments,
        sizes,
        encoder.dtype,
        config.model.quantization,
        boundary,
        reuses,
        read,
    )


def _classifier(
    config: Config, hf_config: dict[str, Any], options: dict[str, Any], boundary: int
) -> tuple[Classifier, bool]:
    """An encoder with its heads, and whether it reuses features."""
    head, num_layers = config.formulation, build_model(hf_config, **options).config.num_layers
    if head.pooling.over == "cls" and hf_config["model_type"] in CAUSAL:
        raise ConfigError(
            f"formulation.pooling.over is cls, but the first token of a {hf_config['model_type']} model sees only "
            "itself: use last, or mean"
        )
    try:
        pooled = hidden_indices(head.pooling.layers, num_layers)
    except UserError as error:
        raise ConfigError(f"formulation.pooling.layers: {error}") from None
    if max(pooled) <= boundary and config.tuning.method == "last_layers" and boundary > 0:
        raise ConfigError(
            f"formulation.pooling.layers {list(head.pooling.layers)} lie below the layers that train (from "
            f"{boundary + 1} of {num_layers} on): only the heads would learn"
        )
    module = Classifier(
        build_model(hf_config, **options),
        num_labels=len(TASKS[config.data.task].labels),
        heads=head.heads,
        pooling=head.pooling.over,
        layers=head.pooling.layers,
        combine=head.pooling.combine,
        dropout_rate=head.head_dropout,
        projection_size=_projection_size(config.loss.contrastive),
    )
    return module, _reuses_features(config.tuning, boundary, min(pooled))


def _seq2seq(
    config: Config, hf_config: dict[str, Any], options: dict[str, Any], encode: Callable[[str], list[int]]
) -> Network:
    """T5 with its two stacks of layers."""
    module = build_t5(hf_config, **options)
    c = module.config
    layers = c.num_layers + c.num_decoder_layers
    sizes = Sizes(hf_config["model_type"], layers, c.d_model, c.d_ff, c.num_heads, c.d_model, c.max_tokens)
    if config.optimizer.layer_decay != 1:
        raise ConfigError("optimizer.layer_decay is defined for one stack of layers, and t5 has two: leave it 1")
    decoder = Stack(c.num_decoder_layers, c.num_heads, c.d_kv)
    stacks = {"encoder": Stack(c.num_layers, c.num_heads, c.d_kv), "decoder": decoder, "cross": decoder}
    new = frozenset({SOFT} if config.formulation.verbalizer.soft else ())
    target = Target(sizes.model_type, new, "embeddings/word/embedding", c.d_model, stacks, encode)
    tuning = make_tuning(config.tuning, target)
    segments = {"encoder": module.segments, "decoder": module.decoder_segments}
    read = partial(_read_whole, load_t5, options)
    return Network(module, tuning, target, segments, sizes, module.dtype, config.model.quantization, 0, False, read)


def check_length(config: Config, sizes: Sizes) -> None:
    """Raise ConfigError unless the network has positions for prompt or prefix, text, and generated answer."""
    form, method = config.formulation, config.tuning.method
    before = config.tuning.length if method in ("prompt", "p_tuning", "prefix") else 0
    behind = form.longest_answer if form.generates and form.kind != "chain_of_thought" else 0
    length = config.data.max_length
    if before + length + behind > sizes.max_tokens:
        answer = "formulation.generation.max_new_tokens" if form.kind in GENERATED else "formulation.max_new_tokens"
        parts = {"tuning.length": before, "data.max_length": length, answer: behind}
        record = " + ".join(f"{key} {tokens}" for key, tokens in parts.items() if tokens)
        record = f"{record} = {sum(parts.values())}" if before or behind else f"data.max_length is {length}"
        raise ConfigError(f"{record}, but the model reads at most {sizes.max_tokens} tokens")


def _read_whole(
    load: Callable[..., tuple[Any, Params]], options: dict[str, Any], folder: Path, place: PlaceLike
) -> Params:
    return load(folder, place=place, **options)[1]


def _read_encoder(options: dict[str, Any], folder: Path, place: PlaceLike) -> Params:
    return {"encoder": load_model(folder, place=place, **options)[1]}


def _projection_size(contrastive: ContrastiveConfig | None) -> int | None:
    return contrastive.projection_size if contrastive and contrastive.embedding == "projected" else None


def _reuses_features(tuning: TuningConfig, boundary: int, lowest_pooled: int) -> bool:
    """Whether every epoch can start from the same output of the layers below `boundary`."""
    if tuning.reuse_features is True and lowest_pooled < boundary:
        raise ConfigError(
            f"tuning.reuse_features: hidden state {lowest_pooled} is pooled, but only the output of layer {boundary}, "
            "the highest that does not train, is kept"
        )
    possible = boundary > 0 and not tuning.dropout_below and lowest_pooled >= boundary
    return possible and tuning.reuse_features is not False


def count(tree: Any) -> int:
    """Number of parameters in a tree of (abstract) arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree, is_leaf=is_quantized))
