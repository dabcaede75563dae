"""What a run works on: arguments, the checkpoint, the tokenizer, the network on its mesh, tokens and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxvalues.config import Config
from jaxvalues.data.batches import Tokens
from jaxvalues.data.held_out import HELD_OUT, Parts, load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.formulations import load_texts
from jaxvalues.models.checkpoints.place import check_only
from jaxvalues.run.base import Base, find_base, find_tokenizer
from jaxvalues.run.batches import training_batches
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunRecord
from jaxvalues.run.prediction import encode
from jaxvalues.run.provenance import describe_environment, input_facts
from jaxvalues.run.system import System, build_system
from jaxvalues.run.warm_start import WarmStart
from jaxvalues.training.compilation import Programs
from jaxvalues.training.sharding import make_mesh
from jaxvalues.training.start_checks import check_same

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Inputs(NamedTuple):
    """What goes into a run; `held_out` are the tokens of its held-out arguments."""

    parts: Parts
    base: Base
    tokenizer: PreTrainedTokenizerBase
    system: System
    batches: TrainingBatches
    held_out: Tokens

    def record(self, config: Config, warm_start: WarmStart) -> RunRecord:
        """What the folder of a run with these inputs keeps."""
        environment = describe_environment(config, self.base, self.parts, self.tokenizer) | warm_start.record
        return RunRecord(environment, self.system.hf_config, self.tokenizer, self.system.texts)


def prepare(config: Config, run_console: RunConsole, programs: Programs | None = None) -> Inputs:
    """Read the inputs of a run, and check that they fit together. No weight is read, and nothing is computed.

    Raises ConfigError and UserError for what does not fit; all processes must find the same.
    """
    parts = load_parts(config.data)
    base = find_base(config.model, config.start_seed)
    texts = load_texts(config.formulation, TASKS[config.data.task])
    tokenizer = find_tokenizer(config, base, parts.full_training, texts)

    system = build_system(
        config,
        base,
        tokenizer,
        make_mesh(config.mesh),
        announce=run_console.compiled,
        programs=programs,
        training=parts.training,
    )
    if system.shortlist is not None:
        system.shortlist.check((parts.held_out, *parts.reported))
    batches = training_batches(system, parts.training, run_console)
    held_out = encode(system, parts.held_out, run_console, HELD_OUT)
    tokens = {"training": batches.tokens, "held_out": held_out}
    check_same(lambda: input_facts(base, parts, tokens, system.texts, system.proposed(parts.held_out)))
    if not base.is_random:
        system.network.read(base.folder, check_only)
    return Inputs(parts, base, tokenizer, system, batches, held_out)
