"""Tiny networks with everything around them, small enough that a test compiles them in seconds."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvalues.config import Config, FormulationConfig, parse_config
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import PlannedBatch, Tokens, collate, inputs_shape
from jaxvalues.data.loading import load_split
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.formulations import load_texts, training_texts
from jaxvalues.models.layers.layout import group
from jaxvalues.run.base import Base, fit_to_tokenizer
from jaxvalues.run.state import initial_state, initial_weights
from jaxvalues.run.system import System
from jaxvalues.templates.template import load_template
from jaxvalues.training.losses import make_loss_hyperparameters
from jaxvalues.training.optimizer import Hyperparameters, make_hyperparameters
from jaxvalues.training.sharding import place_batch, single_mesh, tree_shardings
from jaxvalues.training.step import TrainState

# XLA:CPU compiles widths below 64 slower, not faster.
ROBERTA = {
    "model_type": "roberta",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
}
DEBERTA_V2 = {
    **ROBERTA,
    "model_type": "deberta-v2",
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "position_buckets": 16,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 160}
GEMMA3 = {
    "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 160, "sliding_window": 24,
    "sliding_window_pattern": 2,
}  # fmt: skip
T5 = {"model_type": "t5", "d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4}
NETWORKS = {  # with enough positions for questions
    "roberta": {**ROBERTA, "max_position_embeddings": 162},
    "deberta-v2": {**DEBERTA_V2, "max_position_embeddings": 160},
    "gpt2": GPT2,
    "gemma3": GEMMA3,
    "t5": T5,
}
SECTIONS: dict[str, dict[str, Any]] = {
    "data": {"source": "sample", "max_length": 40, "buckets": [40]},  # most rows are shorter, some are truncated
    "model": {"config": ROBERTA, "tokenizer": "tests/tiny.py", "scan": False},
    "formulation": {"template": "joined"},
    "optimizer": {"learning_rate": 1e-3},
    "training": {"batch_size": 16, "eval_batch_size": 16},
    "logging": {"tensorboard": False},
    "runtime": {"compilation_cache": None},
}
NO_DROPOUT = {"model": {"dropout": 0.0}, "formulation": {"head_dropout": 0.0}}


def config(*changes: dict[str, Any]) -> Config:
    """The tiny config with `changes` ({section: {key: value}}) made to it."""
    tree = {name: dict(section) for name, section in SECTIONS.items()}
    for change in changes:
        for name, section in change.items():
            tree[name] = {**tree.get(name, {}), **section}
    return parse_config(tree)


def question_config(kind: str, network: str, *changes: dict[str, Any]) -> Config:
    """The tiny config of a question formulation on one of `NETWORKS`, without dropout; some rows are truncated."""
    model = {"config": NETWORKS[network], "dropout": 0.0}
    data = {"max_length": 80, "buckets": [80]}
    return config({"model": model, "data": data, "formulation": {"kind": kind, "template": None}}, *changes)


@functools.cache
def split() -> Split:
    """The training split of the embedded sample."""
    return load_split("training", source="sample")


@functools.cache
def tokenizer() -> Any:
    """A tokenizer of 2000 tokens, trained on the sample."""
    texts = [text for argument in split().arguments for text in load_template("joined").render(argument)]
    return train_tokenizer(texts, 2000, 64)


@functools.cache
def asking_tokenizer() -> Any:
    """A tokenizer trained on questions, with Yes and No as tokens."""
    form = FormulationConfig(kind="answer")
    return train_tokenizer(training_texts(form, load_texts(form), split().arguments), 2000, 160)


def one_device() -> Mesh:
    """A mesh of the first device only."""
    return single_mesh()


@functools.cache
def canonical_params(num_layers: int = 2, projected: bool = False) -> Any:
    """Random unrolled parameters of the tiny network, as numpy arrays. They are the same for every system."""
    loss = {"contrastive": {"embedding": "projected"}} if projected else {}
    tiny = system(config({"model": {"config": {**ROBERTA, "num_hidden_layers": num_layers}}, "loss": loss}))
    return jax.tree.map(np.asarray, initial_weights(tiny, Base({}, None, "random"), 0)[1])


def system(config: Config, mesh: Mesh | None = None) -> System:
    """The system of a config, on one device unless a mesh is given."""
    known = asking_tokenizer() if config.formulation.asks_questions else tokenizer()
    return System(config, fit_to_tokenizer(config.model.config, known, True), known, mesh or one_device())


def parts(system: System, scale: float = 5.0) -> tuple[Any, Any]:
    """The initial (frozen, trainable), with matrices scaled by `scale`, so that logits differ between rows."""
    return jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, initial_weights(system, Base({}, None, "random"), 0))


def batch(system: System, tokens: Tokens, size: int) -> dict[str, np.ndarray]:
    """The first rows of `tokens`, padded to `size` and the longest length."""
    planned = PlannedBatch(system.config.lengths[-1], np.arange(min(size, len(tokens))))
    return collate(tokens, planned, size, system.pad_id)


def padded_left(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same rows with their arguments padded on the left."""
    shifts = [int((mask == 0).sum()) for mask in batch["attention_mask"]]
    moved = {
        name: np.stack([np.roll(row, by) for row, by in zip(batch[name], shifts, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
    return {**batch, **moved}


class Run:
    """A system, its training stream, and a state that is trained step by step.

    It starts from `canonical_params`, or from `parts` for question formulations.
    """

    def __init__(self, config: Config, mesh: Mesh | None = None) -> None:
        self.system = system(config, mesh)
        self.tokens = self.system.formulation.encode(split().arguments, split().labels)
        self.batches = TrainingBatches.for_config(config, self.tokens, self.system.pad_id)
        self.hyper = self.make_hyperparameters(config)
        self.restart()

    def make_hyperparameters(self, config: Config) -> Hyperparameters:
        """The hyperparameters of a config, over 100 steps."""
        loss = make_loss_hyperparameters(config.loss, split().labels)
        return make_hyperparameters(config.optimizer, 100, config.seed, loss=loss)

    def restart(self) -> None:
        """Go back to the state before the first step."""
        network = self.system.network
        if self.system.config.formulation.asks_questions:
            self.frozen, trainable = parts(self.system)
        else:
            params = canonical_params(network.num_layers, network.module.projection_size is not None)
            params = group(params, self.system.segments)
            self.frozen, trainable = (
                jax.device_put(part, tree_shardings(part, self.system.mesh))
                for part in self.system.network.tuning.init(jax.random.key(0), params)
            )
        self.state: TrainState = initial_state(self.system, trainable)

    def step(self, batch: dict[str, np.ndarray], hyper: Hyperparameters | None = None) -> dict[str, float]:
        """Train on one batch. Returns the metrics of the step."""
        placed = place_batch(batch, self.system.mesh)
        step, hyper = self.system.train_step, hyper or self.hyper
        self.state, metrics = step(inputs_shape(batch), self.state, self.frozen, placed, hyper)
        return {name: float(value) for name, value in metrics.items()}

    def losses(self, steps: int) -> list[float]:
        """The losses of the next `steps` steps of the stream."""
        stream = self.batches.starting_at(int(self.state.step))
        return [self.step(next(stream))["loss"] for _ in range(steps)]
