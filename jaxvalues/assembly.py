"""From a config to the parts of one run: weights, tokenizer, network, what trains, and the compiled steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvalues.config import Config, ContrastiveConfig, ModelConfig, TuningConfig
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import Slice, Tokens, collate, evaluation_plan, inputs_shape, model_inputs
from jaxvalues.data.template import Template, load_template
from jaxvalues.data.tokenizers import load_tokenizer, pad_id, train_tokenizer
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.classify import Classify
from jaxvalues.models import Classifier, Outputs, build_model, content_hash, fetch, load_model, read_config
from jaxvalues.models.layout import Segments
from jaxvalues.models.stack import hidden_indices
from jaxvalues.training.compilation import Compiled, Executables, Programs
from jaxvalues.training.loop import Stage
from jaxvalues.training.losses import make_loss_hyper
from jaxvalues.training.optimizer import AdamW, make_hyper
from jaxvalues.training.sharding import (
    check_batch_size,
    gather_weights,
    place_batch,
    place_on,
    replicated,
    tree_shardings,
)
from jaxvalues.training.step import TrainState, make_eval_step, make_train_step
from jaxvalues.tuning.weights import Params, Tuning, make_tuning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


INITIAL = 2**32 - 1  # folded into the seed for initial weights, as dropout folds in the number of the step


@dataclasses.dataclass(frozen=True)
class Base:
    """The weights a run starts from: a checkpoint folder, or random ones from a Hugging Face config."""

    hf_config: dict[str, Any]
    folder: Path | None
    identity: str  # content hash of the weights, or what they are drawn from

    @property
    def is_random(self) -> bool:
        return self.folder is None


def find_base(config: ModelConfig, seed: int) -> Base:
    """Find (or download) the checkpoint that the config names. Raises UserError when it cannot be had."""
    if config.config is not None:
        return Base(dict(config.config), None, f"random weights, seed {seed}")
    folder = fetch(config.path, config.revision)
    return Base(read_config(folder), folder, content_hash(folder))


def find_tokenizer(config: Config, base: Base, train: Split, template: Template) -> PreTrainedTokenizerBase:
    """The tokenizer that the config names, or the checkpoint's own, or one trained on the texts of `train`.

    That is the whole training split, before anything is held out: a tokenizer learns from no labels, and so all folds
    have the same one, and a network of the same size.
    """
    model = config.model
    if model.train_tokenizer is not None:
        texts = (text for argument in train.arguments for text in template.render(argument))
        return train_tokenizer(texts, model.train_tokenizer.vocab_size, config.data.max_length)
    return load_tokenizer(model.tokenizer or base.folder, model.revision if model.tokenizer is None else None)


def fit_to_tokenizer(hf_config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, is_random: bool) -> dict[str, Any]:
    """The network's config, checked against the tokenizer; a random network takes sizes it does not give from it."""
    if is_random:
        hf_config = {"vocab_size": len(tokenizer), "pad_token_id": pad_id(tokenizer), **hf_config}
    if len(tokenizer) > hf_config.get("vocab_size", 0):
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens and the model only {hf_config.get('vocab_size')} embeddings: "
            "they do not belong together"
        )
    return hf_config


class Network(NamedTuple):
    """The network a config asks for, without weights. `segments` is how its layers lie in the parameter tree."""

    module: Classifier
    tuning: Tuning
    segments: Segments
    num_layers: int
    encoder_options: dict[str, Any]  # what `load_model` needs to read a checkpoint into it
    reuses_features: bool  # whether it starts from the output of its frozen layers, computed once

    def init(self, rng: jax.Array) -> Params:
        """Random parameters."""
        ids = jnp.zeros((1, 1), jnp.int32)
        return self.module.init(rng, ids, jnp.ones_like(ids))["params"]

    def abstract_parts(self) -> tuple[Params, Params]:
        """Shapes of (frozen, trainable)."""
        rng = jax.random.key(0)
        return self.tuning.init(rng, jax.eval_shape(self.init, rng))


def build_network(config: Config, hf_config: dict[str, Any]) -> Network:
    """The encoder with its heads, cut where the tuning method says that gradients stop."""
    model, head = config.model, config.formulation
    options = {
        "dtype": resolve_dtype(model.dtype),
        "scan": model.scan,
        "remat": model.remat,
        "hidden_dropout": model.dropout,
        "attention_dropout": model.dropout,
    }
    network = build_model(hf_config, **options).config
    if config.data.max_length > network.max_tokens:
        raise ConfigError(
            f"data.max_length is {config.data.max_length}, but the model reads at most {network.max_tokens} tokens"
        )
    tuning = make_tuning(config.tuning)
    boundary = tuning.boundary(network.num_layers)
    try:
        pooled = hidden_indices(head.pooling.layers, network.num_layers)
    except UserError as error:
        raise ConfigError(f"formulation.pooling.layers: {error}") from None
    if max(pooled) <= boundary and config.tuning.method == "last_layers" and boundary > 0:
        raise ConfigError(
            f"formulation.pooling.layers {list(head.pooling.layers)} lie below the layers that train (from "
            f"{boundary + 1} of {network.num_layers} on): only the heads would learn"
        )
    options |= {"boundary": boundary, "stop_gradient_below": boundary, "dropout_below": config.tuning.dropout_below}
    encoder = build_model(hf_config, **options)
    module = Classifier(
        encoder,
        heads=head.heads,
        pooling=head.pooling.over,
        layers=head.pooling.layers,
        combine=head.pooling.combine,
        dropout_rate=head.head_dropout,
        projection_size=_projection_size(config.loss.contrastive),
    )
    reuses = _reuses_features(config.tuning, boundary, min(pooled))
    return Network(module, tuning, encoder.segments, network.num_layers, options, reuses)


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


class System:
    """A config made concrete on a mesh: how arguments become tokens, what trains, and the compiled steps.

    Building one computes nothing.
    """

    def __init__(
        self,
        config: Config,
        hf_config: dict[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        mesh: Mesh,
        *,
        announce: Callable[[Compiled], None] = lambda _: None,
        programs: Programs | None = None,
    ) -> None:
        self.config, self.hf_config, self.mesh = config, hf_config, mesh
        self.pad_id = pad_id(tokenizer)
        template = load_template(config.formulation.template, config.formulation.descriptions)
        self.formulation = Classify(tokenizer, template, config.data.max_length)
        self.network = build_network(config, hf_config)
        self.segments = self.network.segments
        self.optimizer = AdamW(config.optimizer, self.network.num_layers)

        key = (config.program(), json.dumps(hf_config, sort_keys=True), mesh)
        steps = (Programs() if programs is None else programs).get(key, lambda: self._steps(announce))
        self.train_step, self.eval_step = steps["train"], steps["evaluate"]
        self.pretrain_step, self.feature_step = steps.get("pretrain"), steps.get("features")
        self._init_all, self._init_new, self._start = (steps[name] for name in ("all", "new", "start"))

    def _steps(self, announce: Callable[[Compiled], None]) -> dict[str, Any]:
        """The steps of this config, each compiled when it first meets a batch shape, and what makes initial values."""
        config, tuning, whole = self.config, self.network.tuning, replicated(self.mesh)
        state = tree_shardings(self.abstract_state(), self.mesh)

        def train_step(stage: str) -> Any:
            step = make_train_step(
                self._apply, tuning, config.loss, self.optimizer, accumulation=config.training.accumulation, stage=stage
            )
            return jax.jit(step, donate_argnums=0, out_shardings=(state, whole))

        jitted = {
            "train": train_step("training"),
            "evaluate": jax.jit(make_eval_step(self._apply, tuning), out_shardings=whole),
        }
        if config.loss.contrastive is not None and config.loss.contrastive.use == "pretraining":
            jitted["pretrain"] = train_step("pretraining")
        if self.network.reuses_features:
            jitted["features"] = jax.jit(self._features, out_shardings=whole)
        return {name: Executables(name, function, announce) for name, function in jitted.items()} | self._initial()

    def _initial(self) -> dict[str, Any]:
        """What makes all weights, those that no checkpoint holds, and (step, moments), each where it belongs."""
        init = self.network.init
        weights = tree_shardings(jax.eval_shape(init, jax.random.key(0)), self.mesh)
        new = {name: sharding for name, sharding in weights.items() if name != "encoder"}
        state = tree_shardings(self.abstract_state(), self.mesh)

        def start(trainable: Params) -> tuple[jax.Array, Any]:
            return jnp.zeros((), jnp.int32), self.optimizer.init(trainable)

        return {
            "all": jax.jit(init, out_shardings=weights),
            "new": jax.jit(lambda key: {name: init(key)[name] for name in new}, out_shardings=new),
            "start": jax.jit(start, out_shardings=(state.step, state.optimizer)),
        }

    def _apply(self, params: Params, batch: dict[str, jax.Array], key: jax.Array | None) -> Outputs:
        """Logits [B, C] and embedding of a batch; dropout where a key is given."""
        outputs = self.network.module.apply(
            {"params": gather_weights(params, self.mesh)},
            batch.get("input_ids"),
            batch["attention_mask"],
            deterministic=key is None,
            hidden=batch.get("hidden"),
            rngs=None if key is None else {"dropout": key},
        )
        return outputs._replace(logits=self.formulation.read(outputs))

    def _features(self, trainable: Params, frozen: Params, batch: dict[str, jax.Array]) -> jax.Array:
        """The hidden state [B, T, D] under the lowest layer that trains."""
        encoder = self.network.module.encoder
        params = self.network.tuning.bind(frozen, trainable).params["encoder"]
        (hidden,) = encoder.apply(
            {"params": gather_weights(params, self.mesh)},
            batch["input_ids"],
            batch["attention_mask"],
            layers=(encoder.stop_gradient_below,),
        )
        return hidden

    def parts(self, base: Base, seed: int) -> tuple[Params, Params]:
        """The initial (frozen, trainable), each weight made or read right where it belongs on the mesh.

        Heads, and everything else a checkpoint does not hold, are drawn from the seed.
        """
        rng, tuning_rng = jax.random.split(jax.random.fold_in(jax.random.key(seed), INITIAL))
        if base.is_random:
            params = self._init_all(rng)
        else:
            _, encoder = load_model(base.folder, place=place_on(self.mesh), **self.network.encoder_options)
            params = {"encoder": encoder, **self._init_new(rng)}
        return self.network.tuning.init(tuning_rng, params)

    def abstract_state(self) -> TrainState:
        """Shapes of the training state."""
        trainable = self.network.abstract_parts()[1]
        moments = jax.eval_shape(self.optimizer.init, trainable)
        return TrainState(jax.ShapeDtypeStruct((), jnp.int32), trainable, moments)

    def start(self, trainable: Params) -> TrainState:
        """The state before the first step, on the mesh."""
        step, moments = self._start(trainable)
        return TrainState(step, trainable, moments)

    def check_batch_sizes(self) -> None:
        """Raise ConfigError unless batches divide over the mesh."""
        training = self.config.training
        check_batch_size("training.batch_size", training.batch_size // training.accumulation, self.mesh)
        check_batch_size("training.eval_batch_size", training.eval_batch_size, self.mesh)

    def stages(self, steps_per_epoch: int, labels: np.ndarray) -> list[Stage]:
        """What is minimised when; `labels` [n, C] are the training arguments'."""
        config, contrastive = self.config, self.config.loss.contrastive
        loss = make_loss_hyper(config.loss, labels)

        def stage(first: int, epochs: int, step: Executables) -> Stage:
            steps = epochs * steps_per_epoch
            hyper = make_hyper(config.optimizer, steps, config.seed, loss=loss, first_step=first)
            return Stage(first, first + steps, step, hyper)

        before = [] if self.pretrain_step is None else [stage(0, contrastive.epochs, self.pretrain_step)]
        return [*before, stage(before[0].end if before else 0, config.training.epochs, self.train_step)]

    def restart(self, state: TrainState) -> TrainState:
        """The same parameters and step, with an optimizer that has seen nothing."""
        return self.start(state.trainable)._replace(step=state.step)

    def with_features(self, frozen: Params, trainable: Params, tokens: Tokens) -> Tokens:
        """Tokens with the output of the frozen layers, computed once; as they are where it is another at every step."""
        if not self.network.reuses_features or tokens.hidden is not None:
            return tokens
        hidden: list[Any] = [None] * len(tokens)
        for piece, output in self._outputs(self.feature_step, frozen, trainable, tokens):
            for row, index in enumerate(piece.rows):
                hidden[index] = output[row, : len(tokens.ids[index])].copy()
        return dataclasses.replace(tokens, hidden=tuple(hidden))

    def logits(
        self, frozen: Params, trainable: Params, tokens: Tokens, stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray | None:
        """Logits [n, C] float32 of every row of `tokens`, in its order; None if `stop()` asked to leave early."""
        tokens = self.with_features(frozen, trainable, tokens)
        logits = np.zeros((len(tokens), self.network.module.num_labels), np.float32)
        done = 0
        for piece, output in self._outputs(self.eval_step, frozen, trainable, tokens, stop):
            logits[piece.rows] = output[: len(piece.rows)]
            done += len(piece.rows)
        return logits if done == len(tokens) else None

    def _outputs(
        self,
        step: Executables,
        frozen: Params,
        trainable: Params,
        tokens: Tokens,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[Slice, np.ndarray]]:
        """What `step` gives for each batch of `tokens`, one behind the device; ends early when `stop()` asks."""
        size, waiting = self.config.training.eval_batch_size, None
        for piece in evaluation_plan(tokens.lengths, self.config.lengths, size):
            if stop():
                return
            inputs = model_inputs(collate(tokens, piece, size, self.pad_id))
            output = step(inputs_shape(inputs), trainable, frozen, place_batch(inputs, self.mesh))
            if waiting is not None:
                yield waiting[0], np.asarray(waiting[1])
            waiting = piece, output
        if waiting is not None:
            yield waiting[0], np.asarray(waiting[1])


def build_system(
    config: Config,
    base: Base,
    tokenizer: PreTrainedTokenizerBase,
    mesh: Mesh,
    *,
    announce: Callable[[Compiled], None] = lambda _: None,
    programs: Programs | None = None,
) -> System:
    """The system that a run trains. Raises ConfigError for whatever does not fit together; computes nothing."""
    hf_config = fit_to_tokenizer(base.hf_config, tokenizer, base.is_random)
    system = System(config, hf_config, tokenizer, mesh, announce=announce, programs=programs)
    system.check_batch_sizes()
    return system


def settle(config: Config) -> Config:
    """The config with what depends on the devices here made explicit: a run keeps it wherever it goes on."""
    model = config.model.model_copy(update={"dtype": resolve_dtype(config.model.dtype)})
    return config.model_copy(update={"model": model})


def resolve_dtype(dtype: str) -> str:
    """`auto` is bfloat16 on accelerators and float32 on CPU, where bfloat16 is no faster."""
    if dtype != "auto":
        return dtype
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def count(tree: Any) -> int:
    """Number of parameters in a tree of (abstract) arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
