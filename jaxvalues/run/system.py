"""From a config to the parts of one run: weights, tokenizer, network, what trains, and the compiled steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvalues.config import Config, ModelConfig
from jaxvalues.data.arguments import STANCES, Argument, Split
from jaxvalues.data.batches import Slice, Tokens, collate, evaluation_plan, inputs_shape, model_inputs
from jaxvalues.data.task import TASKS
from jaxvalues.data.tokenizers import load_tokenizer, pad_id, train_tokenizer
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts, make_formulation, training_texts
from jaxvalues.formulations.rows import Tokenizer
from jaxvalues.generation import greedy
from jaxvalues.models import Outputs, checkpoint_config, content_hash, fetch
from jaxvalues.run.network import SOFT, build_network, resolve_dtype
from jaxvalues.run.provenance import SYNONYMS, TEMPLATE
from jaxvalues.templates.questions import QuestionTemplate
from jaxvalues.templates.synonyms import synonyms_text
from jaxvalues.templates.template import Template
from jaxvalues.training.compilation import Compiled, Executables, Programs
from jaxvalues.training.loop import Stage
from jaxvalues.training.losses import make_loss_hyper
from jaxvalues.training.memory import give_back_freed_memory
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
from jaxvalues.tuning import Bound, Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CONTENT_FREE = tuple(Argument(f"no content, {stance}", "N/A", stance, "N/A") for stance in STANCES)
"""Arguments that say nothing, by which answers are calibrated (Zhao et al., 2021, "Calibrate Before Use")."""
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
    return Base(checkpoint_config(folder), folder, content_hash(folder))


def find_tokenizer(
    config: Config, base: Base, train: Split, template: Template | QuestionTemplate
) -> PreTrainedTokenizerBase:
    """The tokenizer that the config names, or the checkpoint's own, or one trained on the texts of `train`.

    That is the whole training split, before anything is held out: a tokenizer learns from no labels, and so all folds
    have the same one, and a network of the same size.
    """
    model = config.model
    if model.train_tokenizer is not None:
        texts = training_texts(config.formulation, template, train.arguments)
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
        config = config.explicit()
        self.config, self.hf_config, self.mesh = config, hf_config, mesh
        self.pad_id = pad_id(tokenizer)
        self.template = load_texts(config.formulation, TASKS[config.data.task])
        form, model_type = config.formulation, hf_config["model_type"]
        self.formulation = make_formulation(form, tokenizer, self.template, config.data.max_length, model_type)
        self.network = build_network(config, hf_config, Tokenizer(tokenizer).ids)
        self.segments = self.network.segments
        self.optimizer = AdamW(config.optimizer, self.network.num_layers)

        key = (config.program(), json.dumps(hf_config, sort_keys=True), mesh, self.formulation.constants)
        steps = (Programs() if programs is None else programs).get(key, lambda: self._steps(announce))
        self.train_step, self.eval_step = steps["train"], steps["evaluate"]
        self.pretrain_step, self.feature_step = steps.get("pretrain"), steps.get("features")
        self.generate_step = steps.get("generate")
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
        if config.formulation.generates:
            jitted["generate"] = jax.jit(self._generate, out_shardings=whole)
        return {name: Executables(name, function, announce) for name, function in jitted.items()} | self._initial()

    def _initial(self) -> dict[str, Any]:
        """What makes all weights, those that no checkpoint holds, and (step, moments), each where it belongs."""
        init = self.network.init
        weights = tree_shardings(jax.eval_shape(init, jax.random.key(0)), self.mesh)
        new = {name: sharding for name, sharding in weights.items() if name in self.network.target.new}
        state = tree_shardings(self.abstract_state(), self.mesh)

        def start(trainable: Params) -> tuple[jax.Array, Any]:
            return jnp.zeros((), jnp.int32), self.optimizer.init(trainable)

        return {
            "all": jax.jit(init, out_shardings=weights),
            "new": jax.jit(lambda key: {name: init(key)[name] for name in new}, out_shardings=new),
            "start": jax.jit(start, out_shardings=(state.step, state.optimizer)),
        }

    def _apply(self, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None) -> Outputs:
        """Logits [B, C] and embedding of a batch; dropout where a key is given."""
        bound = bound._replace(params=gather_weights(bound.params, self.mesh))
        return self.formulation.forward(self.network.module, bound, batch, key)

    def _generate(self, trainable: Params, frozen: Params, batch: dict[str, jax.Array]) -> jax.Array:
        """What the model answers to each row of a batch: ids [B, M]."""
        bound = self.network.tuning.bind(frozen, trainable)
        bound = bound._replace(params=gather_weights(bound.params, self.mesh))
        length, end = self.config.formulation.max_new_tokens, self.formulation.question_rows.tokenizer.eos_token_id
        return greedy(self.network.module, bound, batch, length=length, end=end, pad=self.pad_id)

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
            params = {**self.network.read(base.folder, place_on(self.mesh)), **self._init_new(rng)}
        if SOFT in self.network.target.new:
            words = self.network.output_words(params)
            params[SOFT] = {"embedding": self.formulation.verbalizer.start(words)}
        frozen, trainable = self.network.tuning.init(tuning_rng, params)
        jax.block_until_ready((frozen, trainable))
        give_back_freed_memory()
        return frozen, jax.device_put(trainable, tree_shardings(trainable, self.mesh))

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
        """Logits [n, C] float32 of the arguments that `tokens` are about, in their order; None if `stop()` asked to
        leave early."""
        logits = self._row_logits(frozen, trainable, tokens, stop)
        if logits is None:
            return None
        logits = tokens.fold(logits)
        if self.config.formulation.verbalizer.calibrate:
            nothing = self.formulation.encode(CONTENT_FREE)
            logits -= nothing.fold(self._row_logits(frozen, trainable, nothing)).mean(axis=0)
        return logits

    def generated_logits(self, frozen: Params, trainable: Params, tokens: Tokens) -> np.ndarray:
        """The same by generation (open_answer): whether a synonym of the category occurs in what the model says."""
        logits = np.zeros(tokens.asked.categories.shape, np.float32)
        for piece, answers in self._outputs(self.generate_step, frozen, trainable, tokens):
            categories = tokens.asked.categories[piece.rows]
            logits[piece.rows] = self.formulation.match(answers[: len(piece.rows)], categories)
        return tokens.fold(logits)

    def predict(self, frozen: Params, trainable: Params, tokens: Tokens) -> np.ndarray:
        """The logits [n, C] that decide, by likelihood or by generation as the config says."""
        return (self.generated_logits if self.config.formulation.generates else self.logits)(frozen, trainable, tokens)

    @property
    def texts(self) -> dict[str, str]:
        """What a run folder keeps of the texts that it reads, {file name: content}."""
        texts = {TEMPLATE: self.template.text}
        if self.config.formulation.kind == "open_answer":
            texts[SYNONYMS] = synonyms_text(self.formulation.synonyms)
        return texts

    @property
    def scored_by(self) -> str:
        """How open answers are looked at, in words that end a sentence; nothing for other kinds."""
        if self.config.formulation.kind != "open_answer":
            return ""
        return f"; answers scored by {self.config.formulation.scoring}"

    def _row_logits(
        self, frozen: Params, trainable: Params, tokens: Tokens, stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray | None:
        """Logits [rows, C or K] of every row of `tokens`."""
        tokens = self.with_features(frozen, trainable, tokens)
        columns = len(TASKS[self.config.data.task].labels) if tokens.asked is None else tokens.asked.categories.shape[1]
        logits = np.zeros((len(tokens), columns), np.float32)
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


def resolve(config: Config) -> Config:
    """The config with what depends on the devices here, or on other keys, written out: a run keeps it wherever it goes
    on."""
    model = config.model.model_copy(update={"dtype": resolve_dtype(config.model.dtype)})
    return config.explicit().model_copy(update={"model": model})
