"""The weights that a system starts from, the state that training changes, and the stages it goes through."""

from __future__ import annotations

import jax
import numpy as np

from jaxvalues.run.base import Base
from jaxvalues.run.held import place_held
from jaxvalues.run.network import SOFT
from jaxvalues.run.system import System, Weights
from jaxvalues.training.compilation import Executables
from jaxvalues.training.loop import Stage
from jaxvalues.training.losses import make_loss_hyperparameters
from jaxvalues.training.memory import release_freed_memory
from jaxvalues.training.optimizer import make_hyperparameters
from jaxvalues.training.sharding import place_on
from jaxvalues.training.step import TrainState
from jaxvalues.tuning import Params

INITIAL = 2**32 - 1  # folded into the seed for initial weights, as dropout folds in the number of the step


def initial_weights(
    system: System, base: Base, seed: int, *, held: bool = False, known: Params | None = None
) -> Weights:
    """The weights before training, each made or read right where it belongs on the mesh.

    Heads, and everything else a checkpoint does not hold, are drawn from the seed. With `held`, frozen matrices are
    read in the dtype in which training holds them (`held.place_held`), so that their float32 form is never whole.
    `known` is what the checkpoint holds (`read_weights`), where that has been read.
    """
    network = system.network
    rng, tuning_rng = jax.random.split(jax.random.fold_in(jax.random.key(seed), INITIAL))
    if base.is_random:
        params = system.init_all(rng)
    else:
        params = {**(read_weights(system, base, held) if known is None else known), **system.init_new(rng)}
    if SOFT in network.target.new_keys:
        words = network.output_words(params)
        params[SOFT] = {"embedding": system.start_verbalizer(words)}
    frozen, trainable = network.tuning.split(params)
    trainable = {**trainable, **system.draw_added(tuning_rng, params)}
    jax.block_until_ready((frozen, trainable))
    release_freed_memory()
    return Weights(frozen, trainable)


def read_weights(system: System, base: Base, held: bool = False) -> Params:
    """The parameters that the checkpoint holds, on the mesh; with `held` as training holds them."""
    place = place_held(system.network, system.mesh) if held else place_on(system.mesh)
    return system.network.read(base.folder, place)


def initial_state(system: System, trainable: Params) -> TrainState:
    """The state before the first step, on the mesh."""
    step, moments = system.init_state(trainable)
    return TrainState(step, trainable, moments)


def restart(system: System, state: TrainState) -> TrainState:
    """The same parameters and step, with an optimizer that has seen nothing."""
    return initial_state(system, state.trainable)._replace(step=state.step)


def training_stages(system: System, steps_per_epoch: int, labels: np.ndarray) -> list[Stage]:
    """What is minimised when: contrastive pretraining, if the config asks for it, then training.

    `labels` [n, C] are those of the training arguments.
    """
    config, contrastive = system.config, system.config.loss.contrastive
    loss = make_loss_hyperparameters(config.loss, labels)

    def stage(first: int, epochs: int, step: Executables) -> Stage:
        steps = epochs * steps_per_epoch
        hyper = make_hyperparameters(config.optimizer, steps, config.seed, loss=loss, first_step=first)
        return Stage(first, first + steps, step, hyper)

    before = [] if system.pretrain_step is None else [stage(0, contrastive.epochs, system.pretrain_step)]
    return [*before, stage(before[0].end if before else 0, config.training.epochs, system.train_step)]
