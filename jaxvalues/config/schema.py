"""The schema of config files: one class a section, its defaults, and which combinations make no sense."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from jaxvalues.config.formulation import FormulationConfig
from jaxvalues.config.section import Section, check_owners
from jaxvalues.config.tuning import LEARNING_RATES, TuningConfig


class DataConfig(Section):
    """Which arguments train, tune the decision and are reported, and what is learnt about them."""

    task: Literal["values", "stance"] = "values"
    """`values`: the 20 categories an argument draws on; `stance`: whether its premise is in favor of its conclusion or
    against it (the study's NLI), from the two alone."""
    source: Literal["touche23", "sample"] = "touche23"
    """`touche23`: Touché23-ValueEval (downloaded, or read from `dir`); `sample`: the embedded small sample."""
    dir: str | None = None
    """Folder with the data set's TSV files; nothing is downloaded when it is given."""
    train: str = "training"
    """Split that trains."""
    held_out: float | str = 0.1
    """Where thresholds and the best step are chosen: a fraction of the training split, or another split's name."""
    held_out_by: Literal["conclusion", "argument"] = "conclusion"
    """With a fraction: hold out whole conclusions (as between the official splits) or single arguments."""
    held_out_seed: int = Field(0, ge=0)
    """Which part is held out; apart from `seed`, so that runs of several seeds train on the same arguments."""
    folds: int | None = Field(None, ge=2)
    """Cut the training split in this many folds; each is held out once, instead of the fraction `held_out`."""
    fold: int | None = Field(None, ge=0)
    """Which fold this run holds out, from 0; null: one run for each fold, and their ensemble."""
    report: tuple[str, ...] = ("validation", "test")
    """Splits whose scores are reported; never used to choose anything."""
    shots: int | None = Field(None, ge=1)
    """Few-shot: train on so many positive arguments of each category, or so many of each stance (drawn with
    `subset_seed`), and no others."""
    fraction: float | None = Field(None, gt=0, le=1)
    """Train on this share of the training arguments (drawn with `subset_seed`)."""
    subset_seed: int = Field(0, ge=0)
    """Which arguments `shots` and `fraction` take; apart from `seed`, so that all seeds train on the same ones."""
    negatives: float | None = Field(None, gt=0)
    """Kinds that ask: train on every positive pair (argument, category) and so many negative ones for each, drawn with
    the seed; null: ask all 20 categories of every argument."""
    max_length: int = Field(256, ge=4)
    """Longest input in tokens; in longer ones the end of the premise is cut (counted and printed)."""
    buckets: tuple[int, ...] = (32, 48, 64, 96, 128, 256)
    """Lengths that batches are padded to; each costs one compile for training and one for evaluation."""


class TokenizerTraining(Section):
    """A byte-level BPE tokenizer trained on the training split."""

    vocab_size: int = Field(2000, ge=300)


class ModelConfig(Section):
    """Which network, and how it is computed."""

    path: str | None = None
    """Checkpoint folder or hub id (config.json + safetensors)."""
    revision: str | None = None
    """Hub revision."""
    config: dict[str, Any] | None = None
    """Instead of `path`: a Hugging Face config; the model starts from random weights."""
    tokenizer: str | None = None
    """Tokenizer folder or hub id, when it is not beside the weights."""
    train_tokenizer: TokenizerTraining | None = None
    """Train a tokenizer on the training split instead."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute dtype; parameters stay float32. auto: bfloat16 on accelerators, float32 on CPU."""
    scan: bool | Literal["auto"] = "auto"
    """Run layers with one scan (compiles faster) or unrolled (faster steps on CPU). auto: scan on accelerators."""
    remat: bool = False
    """Recompute layer activations in the backward pass to save memory."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Overrides the checkpoint's hidden and attention dropout."""


class ContrastiveConfig(Section):
    """Contrastive learning over the global batch: arguments that share categories are drawn together."""

    use: Literal["joint", "pretraining"] = "joint"
    """A term added to the loss, or a stage of `epochs` before it, in which nothing else is minimised."""
    weight: float = Field(0.1, ge=0)
    """Of the added term (joint)."""
    epochs: int = Field(1, ge=1)
    """Length of the stage (pretraining), before the epochs of `training`."""
    temperature: float = Field(0.05, gt=0)
    embedding: Literal["pooled", "projected"] = "pooled"
    """What is compared: the vector the heads see, or its projection by a small network of its own (SimCLR)."""
    projection_size: int = Field(128, ge=1)
    positives: Literal["labels", "views", "both"] = "labels"
    """Shared labels draw together; or two passes with other dropout of the same argument (SimCSE); or both."""


class LossConfig(Section):
    """What is minimised. Each number belongs to the kinds named beside it."""

    kind: Literal["bce", "class_balanced", "focal", "asymmetric", "class_balanced_negative_tolerant"] = "bce"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """All kinds: targets are drawn towards 1/2 by this share."""
    beta: float = Field(0.999, ge=0, lt=1)
    """class_balanced…: 1/(1 - beta) is about the number of examples beyond which more of them count no more."""
    gamma: float = Field(2.0, ge=0)
    """focal: how much easy examples count less."""
    gamma_positive: float = Field(1.0, ge=0)
    """asymmetric: focusing of positives."""
    gamma_negative: float = Field(4.0, ge=0)
    """asymmetric: focusing of negatives."""
    margin: float = Field(0.05, ge=0, lt=1)
    """asymmetric: negatives with a probability below it do not count."""
    negative_scale: float = Field(2.0, gt=0)
    """class_balanced_negative_tolerant: how much negatives are tolerated; 1 is not at all."""
    prior_shift: float = Field(0.05, ge=0)
    """class_balanced_negative_tolerant: how far logits are shifted towards the categories' log-odds."""
    contrastive: ContrastiveConfig | None = None
    """Contrastive learning besides."""

    @model_validator(mode="after")
    def _numbers_belong_to_kinds(self) -> LossConfig:
        balanced = ("class_balanced", "class_balanced_negative_tolerant")
        owners = {"beta": balanced, "gamma": ("focal",), "negative_scale": balanced[1:], "prior_shift": balanced[1:]}
        owners |= dict.fromkeys(("gamma_positive", "gamma_negative", "margin"), ("asymmetric",))
        check_owners(self, owners, "kind", self.kind)
        return self


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    learning_rate: float | None = Field(None, gt=0)
    """null: the tuning method's own, 10 to 250 times that of full tuning where little trains (LEARNING_RATES)."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from 0."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Learning-rate factor per layer from the top down: heads and top layer 1, the next layer d, then d², …"""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled; not applied to biases and layer norms."""
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest global gradient norm; null turns clipping off."""


Steps = Annotated[int, Field(ge=1)]


class TrainingConfig(Section):
    """How long, in what portions, and what is kept."""

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(8, ge=1)
    """Arguments per optimizer step, over all devices and accumulation steps."""
    accumulation: int = Field(1, ge=1)
    """Micro-batches per step; batch_size must be divisible by it."""
    eval_batch_size: int = Field(32, ge=1)
    evaluate_every: Steps | Literal["epoch"] = "epoch"
    """Steps between evaluations on the held-out part."""
    keep: Literal["best", "last"] = "best"
    """Report with the step of the best held-out score, or with the last one."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without a better held-out score."""
    warn_after: int | None = Field(3, ge=1)
    """Say so when so many evaluations in a row brought no better held-out score; null: never."""
    checkpoint_every: Steps | Literal["epoch"] = "epoch"
    """Steps between checkpoints to resume from (one is also written on Ctrl-C and SIGTERM)."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of metrics.jsonl."""

    @model_validator(mode="after")
    def _batch_is_divisible(self) -> TrainingConfig:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        return self


class MeshConfig(Section):
    """Device mesh: sizes of its axes; -1 (at most one) takes the devices that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    @model_validator(mode="after")
    def _one_free_axis(self) -> MeshConfig:
        sizes = (self.data, self.fsdp, self.tensor)
        if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
            raise ValueError(f"mesh sizes must be positive, at most one of them -1, not {sizes}")
        return self


class DecisionConfig(Section):
    """How probabilities become labels."""

    threshold: Literal["fixed", "tuned", "tuned_per_category"] = "tuned"
    """Tuned thresholds maximise the official F1 on the held-out part (of a stance: accuracy)."""
    value: float = Field(0.5, gt=0, lt=1)
    """The threshold when it is fixed."""


class EnsembleConfig(Section):
    """Several runs in one command, combined at the end: members × seeds × folds."""

    members: tuple[dict[str, Any], ...] = ()
    """Changes to this config, one mapping for each member, each with its own `name`; none: this config itself."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = ()
    """One run for each; none: the config's own seed."""
    method: Literal["mean", "stack"] = "mean"
    """Mean probability, or a logistic regression on the members' held-out predictions, one for each category."""

    @model_validator(mode="after")
    def _members_are_told_apart(self) -> EnsembleConfig:
        names = [str(member.get("name", "")) for member in self.members]
        for number, (name, member) in enumerate(zip(names, self.members, strict=True)):
            if not re.fullmatch(r"[\w.+-]*\w", name):
                raise ValueError(
                    f"members[{number}] needs a `name` of letters, digits and . _ + -, which names its run folders, "
                    f"not {member.get('name')!r}"
                )
            for key in sorted({"base", "ensemble", "output", "runtime"} & member.keys()):
                raise ValueError(f"member {name} cannot have `{key}`: that belongs to the ensemble as a whole")
            if self.seeds and "seed" in member:
                raise ValueError(f"member {name} has a `seed`, but `seeds` gives every member the same ones")
        for what, values in (("members", names), ("seeds", self.seeds)):
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{what}: {twice[0]} is there twice")
        return self


class LoggingConfig(Section):
    """What is written besides metrics.jsonl."""

    tensorboard: bool = True
    wandb: str | None = None
    """Weights & Biases project (needs the extra `wandb`)."""


class RuntimeConfig(Section):
    """The process itself."""

    compilation_cache: str | None = "~/.cache/jaxvalues/xla"
    """Folder of compiled programs shared by all runs; null turns it off."""
    distributed: bool = False
    """Call jax.distributed.initialize() first (TPU pods, SLURM, several hosts)."""


class Config(Section):
    """One run, complete."""

    name: str = "run"
    seed: int = Field(0, ge=0, lt=2**32)
    output: str = "runs/{name}-seed{seed}"
    """Run folder; {name} and {seed} are filled in."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    formulation: FormulationConfig = FormulationConfig()
    tuning: TuningConfig = TuningConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    mesh: MeshConfig = MeshConfig()
    decision: DecisionConfig = DecisionConfig()
    ensemble: EnsembleConfig | None = None
    logging: LoggingConfig = LoggingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Config:
        data = self.data
        if (self.model.path is None) == (self.model.config is None):
            raise ValueError(
                "give model.path (a checkpoint folder or hub id) or model.config (random weights), not both"
            )
        if self.model.config is not None and not (self.model.tokenizer or self.model.train_tokenizer):
            raise ValueError("model.config needs model.tokenizer or model.train_tokenizer")
        if isinstance(data.held_out, str) and data.held_out in (*data.report, data.train):
            raise ValueError(
                f"data.held_out is `{data.held_out}`, which also trains or is reported: thresholds and the best step "
                "must be chosen on arguments that are neither"
            )
        if isinstance(data.held_out, float | int) and not 0 < data.held_out < 1:
            raise ValueError(f"data.held_out must be a fraction between 0 and 1 or a split's name, not {data.held_out}")
        if data.fold is not None and (data.folds is None or data.fold >= data.folds):
            raise ValueError(f"data.fold is {data.fold}, but data.folds is {data.folds}: folds are counted from 0")
        if data.folds is not None and isinstance(data.held_out, str):
            raise ValueError(
                f"data.folds holds out parts of the training split, but data.held_out names the split "
                f"`{data.held_out}`: give data.held_out=0.1 (which folds take the place of), or leave out data.folds"
            )
        contrastive = self.loss.contrastive
        if contrastive is not None and self.training.accumulation > 1:
            raise ValueError(
                "loss.contrastive compares the arguments of a whole batch, which training.accumulation would cut: "
                "leave it 1"
            )
        if data.train in data.report:
            raise ValueError(f"data.report names the training split `{data.train}`")
        if list(data.buckets) != sorted(set(data.buckets)) or not data.buckets or data.buckets[0] < 1:
            raise ValueError(f"data.buckets must be increasing positive lengths, not {list(data.buckets)}")
        return self

    @model_validator(mode="after")
    def _kinds_fit_methods(self) -> Config:
        kind, data = self.formulation.kind, self.data
        if self.formulation.asks_questions:
            if self.loss.contrastive is not None or not self.tuning.dropout_below:
                what = "loss.contrastive" if self.loss.contrastive is not None else "tuning.dropout_below: false"
                raise ValueError(f"{what} belongs to formulation.kind: classify, not to {kind}")
            if self.tuning.method == "head":
                raise ValueError(f"tuning.method: head trains a classifier's head, and {kind} has none")
        elif data.negatives is not None:
            raise ValueError(
                "data.negatives draws questions about an argument, and formulation.kind: classify asks none"
            )
        if data.shots is not None and data.fraction is not None:
            raise ValueError("give data.shots or data.fraction, not both")
        return self

    @model_validator(mode="after")
    def _task_has_categories(self) -> Config:
        if self.data.task == "values":
            return self
        of_categories = {
            "formulation.kind: open_answer": self.formulation.kind == "open_answer",
            "formulation.descriptions": self.formulation.descriptions is not None,
            "formulation.heads: multiple": self.formulation.heads == "multiple",
            "data.negatives": self.data.negatives is not None,
            "tuning.init: labels": self.tuning.init == "labels",
            "loss.contrastive": self.loss.contrastive is not None,
            "decision.threshold: tuned_per_category": self.decision.threshold == "tuned_per_category",
            "an ensemble (ensemble, data.folds)": self.is_ensemble,
        }
        for what in (what for what, is_there in of_categories.items() if is_there):
            raise ValueError(f"{what} is for the 20 value categories, and data.task: {self.data.task} has none")
        return self

    @property
    def folder(self) -> Path:
        """The run folder, with its placeholders filled in."""
        return Path(self.output.replace("{name}", self.name).replace("{seed}", str(self.seed))).expanduser()

    def explicit(self) -> Config:
        """The config with the defaults that depend on other keys written out: learning rate and template."""
        changes: dict[str, Any] = {}
        if self.optimizer.learning_rate is None:
            rate, _ = LEARNING_RATES[self.tuning.method]
            changes["optimizer"] = self.optimizer.model_copy(update={"learning_rate": rate})
        form = self.formulation
        if form.template is None:
            changes["formulation"] = form.model_copy(update={"template": form.default_template(self.data.task)})
        return self.model_copy(update=changes)

    @property
    def is_ensemble(self) -> bool:
        """Whether it asks for several runs (of members, seeds or folds) and their combination."""
        return self.ensemble is not None or (self.data.folds is not None and self.data.fold is None)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Bucket lengths in use: those below `max_length`, and `max_length` itself."""
        return (*(length for length in self.data.buckets if length < self.data.max_length), self.data.max_length)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def decisive(self) -> dict[str, Any]:
        """Everything that decides the numbers. Not: names, places, and how the work is laid out on devices."""
        tree = self.model_dump(mode="json", exclude={"name", "output", "mesh", "logging", "runtime"})
        for section, key in (("data", "dir"), ("model", "path"), ("model", "scan"), ("model", "remat")):
            del tree[section][key]
        return tree

    def program(self) -> str:
        """All that decides the compiled steps; runs that agree in it can share them.

        Not: what enters as traced numbers, and what only decides which batches come and how long.
        """
        tree = self.decisive()
        tree["task"] = self.data.task
        for section in ("seed", "data", "decision", "ensemble"):
            del tree[section]
        tree["training"] = {"accumulation": self.training.accumulation}
        tree["model"] = self.model.model_dump(exclude={"path", "revision", "tokenizer", "train_tokenizer"})
        for name in ("learning_rate", "warmup", "layer_decay", "weight_decay", "clip_norm"):
            del tree["optimizer"][name]
        for name in ("template", "descriptions"):
            del tree["formulation"][name]
        loss, contrastive = tree["loss"], tree["loss"]["contrastive"]
        tree["loss"] = {"kind": loss["kind"]}
        if contrastive is not None:
            tree["loss"] |= {key: contrastive[key] for key in ("use", "embedding", "projection_size", "positives")}
        return json.dumps(tree, sort_keys=True)

    def fingerprint(self) -> str:
        """Short hash of `decisive`; weights and data are told apart by their own checksums."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()[:16]
