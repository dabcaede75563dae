"""What a run says on the screen."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.data.batches import Tokens
from jaxvalues.data.held_out import Parts
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import counted, print_everything
from jaxvalues.evaluation.coverage import mark, note
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.measures import TaskScores
from jaxvalues.evaluation.report_table import in_words, render_decisions, render_scores
from jaxvalues.run.base import Base
from jaxvalues.run.network import count
from jaxvalues.run.summary import summary
from jaxvalues.run.system import System, Weights
from jaxvalues.templates.chat import has_chat_template
from jaxvalues.training.compilation import Compiled


class RunConsole:
    """Prints the few lines by which a person follows a run; `brief`, fewer of them, where it is one of several."""

    def __init__(self, console: Console, brief: bool = False) -> None:
        self.console, self.brief = console, brief
        print_everything(console.file)

    def print(self, text: str) -> None:
        """A sentence or a few. On a terminal lines break between words, and a long path stays whole."""
        if self.console.is_terminal or "COLUMNS" in os.environ:
            text = "\n".join(_broken(line, self.console.width) for line in text.split("\n"))
        self.console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def process(self, cache: Path | None, wanted: str | None = None) -> None:
        """The devices, and where compiled programs are kept; `wanted` is the folder that the config names for them."""
        devices = jax.devices()
        kept = f"compiled programs are kept in {cache}" if cache else "compiled programs are not kept"
        if wanted is not None and cache is None:
            kept += f", as nothing can be written in {wanted} (runtime.compilation_cache names another folder)"
        self.print(f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform}), jax {jax.__version__}; {kept}")

    def compiled(self, one: Compiled) -> None:
        self.print(f"  {one}")

    def encoded(self, name: str, tokens: Tokens, config: Config) -> None:
        """How many arguments of a split were truncated, or have no space for all examples."""
        total = tokens.num_arguments
        if tokens.truncated:
            limit = config.data.max_length
            self.print(f"{name}: {tokens.truncated:,} of {total:,} arguments are truncated to {limit} tokens")
        if tokens.fewer_examples:
            examples = config.formulation.examples.count
            shown = examples - tokens.examples_left_out / len(tokens)
            self.print(
                f"{name}: the prompts of {tokens.fewer_examples:,} of {total:,} arguments have no space for all "
                f"{examples} examples; prompts have {shown:.2f} examples on average"
            )

    def start(self, base: Base, system: System, weights: Weights, batches: TrainingBatches, parts: Parts) -> None:
        """What is about to be trained, on what, for how long."""
        frozen, trainable = weights
        model, dtype = system.hf_config["model_type"], np.dtype(system.network.dtype).name
        self.print(
            f"{model}, {system.network.num_layers} layers, {base.folder or 'RANDOM WEIGHTS, nothing pretrained'}"
        )
        self.print(
            f"{count(trainable):,} parameters train, {count(frozen):,} are frozen; computed in {dtype}; mesh "
            + " × ".join(f"{axis} {size}" for axis, size in system.mesh.shape.items())
        )
        form = system.config.formulation
        if form.asks_questions and not form.chat and has_chat_template(system.tokenizer):
            self.print("the tokenizer has a chat template, which is not used: formulation.chat=true uses it")
        if not count(trainable):
            self.print(f"nothing trains; {len(parts.held_out)} held-out arguments tune the thresholds")
            self.print("answers are kept as they come: after a stop, the same command resumes")
            return
        contrastive, epochs = system.config.loss.contrastive, _epochs(system.config.training.epochs)
        if contrastive is not None and contrastive.use == "pretraining":
            epochs = f"{_epochs(contrastive.epochs)} of contrastive pretraining, then {epochs},"
        sizes = f"{len(parts.training)} training and {len(parts.held_out)} held-out arguments"
        self.print(
            f"{sizes}; {epochs} of {batches.steps_per_epoch} steps; lengths {', '.join(map(str, batches.lengths()))}"
        )
        self.print(f"each step (update) is on {batches.size}")
        if parts.subset_note is not None:
            self.print(parts.subset_note)
        if batches.tokens.questions is not None:
            self.print(_questions(batches))
        if batches.tokens.hidden is not None:
            size = sum(one.nbytes for one in batches.tokens.hidden) / 2**20
            self.print(
                f"the output of the {system.network.boundary} frozen layers is computed and "
                f"kept: {size:,.0f} MiB of host memory for the training arguments"
            )

    def end(self, system: System, step: int, decision: Decision, arguments: int) -> None:
        """What the run did, how many programs were compiled, which parameters were chosen, and how they decide.

        `arguments` is the number of those it trained on.
        """
        frozen, trainable = map(count, system.network.abstract_parts())
        if not self.brief:  # several runs share their programs
            self.print(summary(system.config, system.hf_config["model_type"], trainable, frozen, arguments))
            steps = {"to train": system.train_step, "to evaluate": system.eval_step}
            steps |= {"to pretrain": system.pretrain_step, "for features": system.feature_step}
            steps |= {"to generate": system.generate_step, "to score answers": system.score_step}
            shapes = {what: len(step) for what, step in steps.items() if step is not None}
            if behind := sum(map(len, system.steps_behind)):
                shapes["to ask behind a shared beginning of prompts"] = behind
            parts = ", ".join(f"{number} {what}" for what, number in shapes.items())
            self.print(f"compiled {counted(sum(shapes.values()), 'program')}, one for each batch shape: {parts}")
        if trainable and step == 0:
            self.print(
                "WARNING: no step of training scored better on the held-out part than the untrained start, so the "
                "parameters of step 0 predict: training changed nothing. Try another optimizer.learning_rate (it is "
                f"{system.config.optimizer.learning_rate:g}) or more training.epochs."
            )
        trained = f"parameters of step {step}" if trainable else "nothing was trained"
        self.print(f"{trained}; {decision.how}: {decision.span}")

    def unscored(self, split: str) -> None:
        """A split without labels."""
        self.print(f"{split}: no argument has a label, so it is predicted and not scored")

    def scores(self, reported: Mapping[str, TaskScores | None], is_random: bool, folder: Path) -> None:
        """The table, and where everything is; the two main figures when brief. None are the scores of no labels."""
        for split, one in reported.items():
            if one is None:
                self.unscored(split)
            elif self.brief:
                figures = (f"{in_words(name)} {value:.3f}{mark(one)}" for name, value in one.headline.items())
                self.print(f"{split}: {', '.join(figures)}")
        scored = {split: one for split, one in reported.items() if one is not None}
        if self.brief:
            if (said := note(scored)) is not None:
                self.print(said)
            return
        if scored:
            render_scores(scored, self.console)
        if is_random:
            self.random("scores")
        self.print(f"Run folder: {folder}")
        if (folder / "tensorboard").is_dir():
            extra = "" if importlib.util.find_spec("tensorboard") else " (needs pip install 'jaxvalues[tensorboard]')"
            self.print(f"Curves: tensorboard --logdir {folder / 'tensorboard'}{extra}")

    def decisions(self, rows: Mapping[str, Mapping[str, TaskScores]] | None) -> None:
        """Other decisions about the same logits, side by side; None: there are none."""
        if rows and not self.brief:
            render_decisions(rows, self.console)

    def predicted(self, written: Iterable[Path], is_random: bool) -> None:
        """Where predictions of a finished run are."""
        if is_random:
            self.random("predictions")
        self.print("Wrote:")
        for path in written:
            self.print(f"  {path}")

    def random(self, what: str) -> None:
        """The warning about a model that nothing was known to before it trained."""
        self.print(f"The model started from random weights: these {what} show that it runs, not what it can do.")


def _broken(line: str, width: int) -> str:
    """A line broken between words, continued with a deeper indentation."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _questions(batches: TrainingBatches) -> str:
    """How many questions a row asks, and what it saves that they branch from one argument."""
    tokens, size = batches.tokens, batches.size
    questions = tokens.questions
    each = questions.categories.shape[1]
    anew = "" if batches.negatives is None else "; the negative ones are drawn anew in every epoch"
    if questions.question_ids is None or each == 1 or batches.by_question:
        return f"{size.questions:,} questions an epoch, one a row{anew}"
    lengths = (questions.question_ids >= 0).sum(axis=1)[questions.categories].sum(axis=1)
    together, apart = (tokens.lengths + lengths).sum(), (tokens.lengths * each + lengths).sum()
    return (
        f"{each} questions branch from every argument: {together:,} tokens an epoch in the place of {apart:,}, "
        f"{apart / together:.1f} times fewer" + (f"; {size.questions:,} of them count{anew}" if anew else "")
    )


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"
