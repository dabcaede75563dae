"""A config made concrete: the formulation, the network, and the compiled steps. Building one computes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvalues.config import GENERATED, Config
from jaxvalues.data.arguments import Split
from jaxvalues.data.task import TASKS
from jaxvalues.data.tokenizer_files import tokenizer_hash
from jaxvalues.data.tokenizers import pad_id
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts, make_formulation
from jaxvalues.formulations.examples import Examples
from jaxvalues.formulations.rows import SafeTokenizer
from jaxvalues.generation import LanguageModel, greedy
from jaxvalues.models import CausalLM, Outputs
from jaxvalues.models.layers.cache import as_prefix, empty_cache
from jaxvalues.run.base import Base, fit_to_tokenizer
from jaxvalues.run.network import SOFT, build_network
from jaxvalues.run.provenance import kept_texts
from jaxvalues.run.sentences import make_examples
from jaxvalues.run.shortlist import Shortlist
from jaxvalues.training.compilation import Compiled, Executables, Programs
from jaxvalues.training.optimizer import AdamW
from jaxvalues.training.sharding import check_batch_size, gather_weights, replicated, tree_shardings
from jaxvalues.training.step import TrainState, make_embedding_step, make_eval_step, make_train_step
from jaxvalues.training.together import (
    Members,
    abstract_together,
    evaluate_together,
    start_together,
    step_together,
)
from jaxvalues.tuning import Bound, Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_IN_METHOD = 2**32 - 1  # folded into the key of dropout in the network for that in what a method adds


class Weights(NamedTuple):
    """The parameters of a system: those that stay as they are, and those that train."""

    frozen: Params
    trainable: Params


class System:
    """How arguments become tokens, what trains, and the compiled steps, on one mesh.

    Attributes: `config`, with every default written out; `identity`, that of the weights it starts from where it is
    known (see `Base`); `tokenizer`; `formulation` and `template`; `examples`, those that prompts show; `shortlist`;
    `language_model`, made when texts are first generated; `network`, without weights; `optimizer`; `train_step` and
    `eval_step`, and, None where the config has no use for them, `pretrain_step`, `feature_step`, `generate_step`,
    `score_step` and `embed_step`; `init_all`, `init_new`, `draw_added`, `start_verbalizer` and
    `init_state`, which make initial values on the mesh; `members`, None but where several runs train together (see
    `together`).
    """

    members: Members | None = None

    def __init__(
        self,
        config: Config,
        hf_config: dict[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        mesh: Mesh,
        *,
        announce: Callable[[Compiled], None] = lambda _: None,
        programs: Programs | None = None,
        identity: str | None = None,
        examples: Examples | None = None,
    ) -> None:
        config = config.explicit()
        if config.formulation.examples is not None and examples is None:
            raise ConfigError("formulation.examples needs training arguments, and there are none here: remove it")
        self.config, self.hf_config, self.mesh, self.identity = config, hf_config, mesh, identity
        self.tokenizer, self.pad_id = tokenizer, pad_id(tokenizer)
        self.template = load_texts(config.formulation, TASKS[config.data.task])
        form, model_type = config.formulation, hf_config["model_type"]
        self.formulation = make_formulation(
            form, tokenizer, self.template, config.data.max_length, model_type, examples=examples
        )
        self.examples = examples
        self.shortlist = None if form.shortlist is None else Shortlist.read(form.shortlist)
        encode, gathers = SafeTokenizer(tokenizer).ids, mesh.shape["fsdp"] > 1
        self.network = build_network(config, hf_config, encode, gathers=gathers)
        self.segments = self.network.segments
        self.language_model: LanguageModel | None = None
        self.optimizer = AdamW(config.optimizer, self.network.num_layers)

        self.announce, self.programs = announce, Programs() if programs is None else programs
        # Prompts that start from words are drawn by a program that knows the words' ids.
        words = tokenizer_hash(tokenizer) if config.tuning.init in ("labels", "text") else None
        self.key = (config.program(), json.dumps(hf_config, sort_keys=True), mesh, self.formulation.constants, words)
        self._take_steps()

    def together(self, members: Members) -> System:
        """This system for several runs at once, which differ in seed or traced numbers and share what is frozen.

        Trainable parameters, moments, hyperparameters, metrics and logits get a leading axis [R].
        """
        other = copy.copy(self)
        other.members = members
        other._take_steps()
        return other

    def of_member(self, config: Config) -> System:
        """This system for the config of one of several runs that train together."""
        other = copy.copy(self)
        other.config = config.explicit()
        return other

    def _take_steps(self) -> None:
        steps = self.programs.get((*self.key, self.members), self._steps)
        for step in steps.values():
            if isinstance(step, Executables):
                step.announce = self.announce  # of this run: that of an earlier one may write to a file that is closed
        self.train_step, self.eval_step = steps["train"], steps["evaluate"]
        self.pretrain_step, self.feature_step = steps.get("pretrain"), steps.get("features")
        self.generate_step, self.score_step = steps.get("generate"), steps.get("score")
        self.embed_step = steps.get("embed")
        self.init_all, self.init_new, self.init_state = (steps[name] for name in ("all", "new", "start"))
        self.draw_added, self.start_verbalizer = steps["added"], steps["verbalizer"]

    def abstract_state(self) -> TrainState:
        """Shapes of the training state."""
        trainable = self.network.abstract_parts()[1]
        moments = jax.eval_shape(self.optimizer.init, trainable)
        state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), trainable, moments)
        return state if self.members is None else abstract_together(state, self.members)

    @property
    def reads_beginnings(self) -> bool:
        """Whether what many prompts begin with can be read once: by a causal network in which nothing trains."""
        return not self.network.trains and isinstance(self.network.module, CausalLM)

    def behind(self, step: Executables, length: int) -> tuple[Executables, Any]:
        """What asks about rows behind a beginning of so many tokens, and what reads that.

        The first is `step` with the keys and values of the beginning in the place of what trains; the second gives
        these, [L, 2, P, K, H], for (frozen, ids [P]).
        """

        def make() -> dict[str, Any]:
            ask = {"score": self._score, "evaluate": self._evaluate}[step.name]
            whole, name = replicated(self.mesh), f"{step.name} behind {length}"
            jitted = jax.jit(lambda past, frozen, batch: ask({}, frozen, batch, past), out_shardings=whole)
            return {"ask": Executables(name, jitted), "read": jax.jit(self._read, out_shardings=whole)}

        steps = self.programs.get((*self.key, step.name, length), make)
        steps["ask"].announce = self.announce
        return steps["ask"], steps["read"]

    @property
    def steps_behind(self) -> list[Executables]:
        """The steps that `behind` made, for each length."""
        known = self.programs.held.items()
        return [steps["ask"] for key, steps in known if key[: len(self.key)] == self.key and "ask" in steps]

    def proposed(self, split: Split) -> np.ndarray | None:
        """Where the shortlist proposes a category of an argument, [n, C] bool; None without one."""
        return None if self.shortlist is None else self.shortlist.of(split)

    @property
    def texts(self) -> dict[str, str]:
        """What a run folder keeps of the texts that the run reads, {file name: content}."""
        return kept_texts(self.template, getattr(self.formulation, "synonyms", None), self.examples)

    def _steps(self) -> dict[str, Any]:
        """The steps of this config, each compiled when it first meets a batch shape, and what makes initial values."""
        config, tuning, whole, members = self.config, self.network.tuning, replicated(self.mesh), self.members
        state = tree_shardings(self.abstract_state(), self.mesh)

        def train_step(stage: str) -> Any:
            step = make_train_step(
                self._apply, tuning, config.loss, self.optimizer, accumulation=config.training.accumulation, stage=stage
            )
            step = step if members is None else step_together(step, members)
            return jax.jit(step, donate_argnums=0, out_shardings=(state, whole))

        evaluate = make_eval_step(self._apply, tuning)
        evaluate = evaluate if members is None else evaluate_together(evaluate)
        jitted = {"train": train_step("training"), "evaluate": jax.jit(evaluate, out_shardings=whole)}
        if config.loss.contrastive is not None:
            jitted["embed"] = jax.jit(make_embedding_step(self._apply, tuning), out_shardings=whole)
        if config.loss.contrastive is not None and config.loss.contrastive.use == "pretraining":
            jitted["pretrain"] = train_step("pretraining")
        if self.network.reuses_features:
            jitted["features"] = jax.jit(self._features, out_shardings=whole)
        if config.formulation.generates and config.formulation.kind not in GENERATED:
            jitted["generate"] = jax.jit(self._generate, out_shardings=whole)
        if self._measures_mass:
            jitted["score"] = jax.jit(self._score, out_shardings=whole)
        return {name: Executables(name, function) for name, function in jitted.items()} | self._initial()

    def _initial(self) -> dict[str, Any]:
        """What makes all weights, those that no checkpoint holds, those that the tuning method adds, the vectors of a
        soft verbalizer, and (step, moments), each where it belongs."""
        init, draw = self.network.init, self.network.tuning.draw
        weights = tree_shardings(self.network.abstract_params, self.mesh)
        new = {name: sharding for name, sharding in weights.items() if name in self.network.target.new_keys}
        added = jax.eval_shape(draw, jax.random.key(0), self.network.abstract_params)
        state = tree_shardings(self.abstract_state(), self.mesh)
        verbalizer = self.formulation.verbalizer.initial_vectors if SOFT in new else lambda words: words

        def start(trainable: Params) -> tuple[jax.Array, Any]:
            return jnp.zeros((), jnp.int32), self.optimizer.init(trainable)

        start = start if self.members is None else start_together(start)
        return {
            "all": jax.jit(init, out_shardings=weights),
            "new": jax.jit(lambda key: {name: init(key)[name] for name in new}, out_shardings=new),
            "added": jax.jit(draw, out_shardings=tree_shardings(added, self.mesh)),
            "verbalizer": jax.jit(verbalizer, out_shardings=replicated(self.mesh)),
            "start": jax.jit(start, out_shardings=(state.step, state.optimizer)),
        }

    def _apply(self, bound: Bound, batch: dict[str, jax.Array], key: jax.Array | None) -> Outputs:
        """Logits [B, C] and embedding of a batch; dropout where a key is given."""
        if key is not None:
            bound = self.network.tuning.with_dropout(bound, jax.random.fold_in(key, _IN_METHOD))
        return self.formulation.forward(self.network.module, self._gathered(bound), batch, key)

    def _gathered(self, bound: Bound) -> Bound:
        """What a network computes with, its weights gathered where they lie in shards."""
        return bound._replace(params=gather_weights(bound.params, self.mesh))

    @property
    def _measures_mass(self) -> bool:
        """Whether predictions come with the probability of the answer words: where the network is used as it is, or
        in a chat."""
        is_prompted = self.config.tuning.method == "none" or self.config.formulation.chat
        return is_prompted and getattr(self.formulation, "measures_mass", False)

    def _score(
        self, trainable: Params, frozen: Params, batch: dict[str, jax.Array], past: jax.Array | None = None
    ) -> jax.Array:
        """Logits and probabilities of the answer words, [B, K, 2], behind the keys and values `past`."""
        return self.formulation.scores(self.network.module, self._bound(trainable, frozen, past), batch)

    def _evaluate(
        self, trainable: Params, frozen: Params, batch: dict[str, jax.Array], past: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, K] behind the keys and values `past`."""
        return self.formulation.forward(self.network.module, self._bound(trainable, frozen, past), batch).logits

    def _bound(self, trainable: Params, frozen: Params, past: jax.Array | None) -> Bound:
        bound = self._gathered(self.network.tuning.bind(frozen, trainable))
        return bound if past is None else bound._replace(prefix=past)

    def _read(self, frozen: Params, ids: jax.Array) -> jax.Array:
        """The keys and values [L, 2, P, K, H] of tokens [P] at the beginning of a text."""
        network, params = self.network.module, self._bound({}, frozen, None).params
        cache = empty_cache(network.encoder, 1, len(ids))
        ids = ids[None]
        options = {"positions": jnp.zeros((1, 1), jnp.int32), "words": ids[0, :1], "filled": 0}
        _, cache = network.apply({"params": params}, ids, jnp.ones_like(ids), cache, method="extend", **options)
        return as_prefix(cache)

    def _generate(self, trainable: Params, frozen: Params, batch: dict[str, jax.Array]) -> jax.Array:
        """What the model answers to each row of a batch: ids [B, M]."""
        bound = self._gathered(self.network.tuning.bind(frozen, trainable))
        length, ends = self.config.formulation.max_new_tokens, self.formulation.constants
        return greedy(self.network.module, bound, batch, length=length, ends=ends, pad=self.pad_id)

    def _features(self, trainable: Params, frozen: Params, batch: dict[str, jax.Array]) -> jax.Array:
        """The hidden state [B, T, D] below the lowest layer that trains."""
        encoder = self.network.module.encoder
        params = self.network.tuning.bind(frozen, trainable).params["encoder"]
        (hidden,) = encoder.apply(
            {"params": gather_weights(params, self.mesh)},
            batch["input_ids"],
            batch["attention_mask"],
            layers=(encoder.stop_gradient_below,),
        )
        return hidden


def build_system(
    config: Config,
    base: Base,
    tokenizer: PreTrainedTokenizerBase,
    mesh: Mesh,
    *,
    announce: Callable[[Compiled], None] = lambda _: None,
    programs: Programs | None = None,
    training: Split | None = None,
) -> System:
    """The system that a run trains. Raises ConfigError for whatever does not fit together; computes nothing.

    `training` are the arguments from which examples are drawn, where prompts show some.
    """
    examples = None if training is None else make_examples(config, training)
    hf_config = fit_to_tokenizer(base.hf_config, tokenizer, base.is_random)
    system = System(
        config,
        hf_config,
        tokenizer,
        mesh,
        announce=announce,
        programs=programs,
        identity=base.identity,
        examples=examples,
    )
    training, each = config.training, 1
    if config.formulation.asks_questions and config.formulation.kind not in GENERATED:
        each = system.formulation.question_rows.rows_per_argument
    if training.questions_per_step is not None:
        check_step_rows(config, training.questions_per_step, mesh)
    elif each == 1 or config.data.negatives is None:  # otherwise the data decide, see `training_batches`
        check_step_rows(config, training.batch_size * each, mesh)
    check_batch_size("training.eval_batch_size", training.eval_batch_size, mesh)
    return system


def check_step_rows(config: Config, rows: int, mesh: Mesh) -> None:
    """Raise ConfigError unless the rows of a training step split into micro-batches, and those over the mesh."""
    training = config.training
    key = "training.batch_size" if training.questions_per_step is None else "training.questions_per_step"
    if rows % training.accumulation:
        raise ConfigError(
            f"training.accumulation: {training.accumulation} micro-batches do not divide the {rows} rows of a step, "
            f"which follow from {key}"
        )
    check_batch_size(key, rows // training.accumulation, mesh)
