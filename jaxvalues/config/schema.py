"""The schema of a whole config file: its sections, their defaults, and the combinations that are refused.

The sections `data`, `ensemble`, `formulation`, `loss`, `model` and `tuning` are in files of their own; smaller ones are
here.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from jaxvalues.config.data import DataConfig
from jaxvalues.config.ensemble import EnsembleConfig
from jaxvalues.config.formulation import GENERATED, FormulationConfig
from jaxvalues.config.loss import LossConfig
from jaxvalues.config.model import ModelConfig
from jaxvalues.config.reading import user_path
from jaxvalues.config.remote import LAYOUT
from jaxvalues.config.section import URL_REFUSED, Name, Section, Text, check_owners, check_placeholders, is_url
from jaxvalues.config.trees import without_nulls
from jaxvalues.config.tuning import LEARNING_RATES, TuningConfig


class _Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e-4 too, which are numbers in a config file."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate. null: the default of the tuning method, see the table under `tuning`."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up. `cosine` and `linear` end at 0."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor d of the learning rate per layer, from the top down: 1 for heads and top layer, then d, d², …"""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay. It does not apply to biases and layer norms."""
    b1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay of the first moment."""
    b2: float = Field(0.999, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's term that keeps the denominator above 0."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest global norm of gradients. null: no clipping."""


Steps = Annotated[int, Field(ge=1)]


class TrainingConfig(Section):
    """Length of training, batches, evaluations and checkpoints."""

    epochs: int = Field(3, ge=1)
    """Passes over the training arguments."""
    batch_size: int = Field(8, ge=1)
    """Arguments per optimizer step, over all devices and micro-batches. Question formulations ask all questions about
    them, or those that `data.negatives` draws."""
    questions_per_step: int | None = Field(None, ge=1)
    """Question formulations: questions per optimizer step, in place of `batch_size`, drawn from all questions about all
    arguments. The study uses 8. null: `batch_size` arguments."""
    accumulation: int = Field(1, ge=1)
    """Micro-batches per optimizer step, which save memory. It must divide the rows of a step. A row is one question; it
    is an argument for `classify`, and where the questions branch from their argument (causal models without
    `questions_per_step`)."""
    eval_batch_size: int = Field(32, ge=1)
    """Rows per batch when predicting. It affects memory and speed, and no score. A row is one question; it is an
    argument for `classify`, and where the questions branch from their argument."""
    evaluate_every: Steps | Literal["epoch"] = "epoch"
    """Steps between evaluations on the held-out part, or `epoch`."""
    keep: Literal["best", "last"] = "best"
    """Checkpoint to report: that of the best held-out score, or the last one."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without a better held-out score. null: never."""
    warn_after: int | None = Field(3, ge=1)
    """Warn after this many evaluations without a better held-out score. null: never."""
    checkpoint_every: Steps | Literal["epoch"] = "epoch"
    """Steps between checkpoints to resume from, or `epoch`. Ctrl-C, SIGTERM and SIGHUP save one as well."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of `metrics.jsonl`."""


class MeshConfig(Section):
    """Sizes of the axes of the device mesh. One axis may be -1: it takes the remaining devices."""

    data: int = -1
    """Data parallelism: each device holds all weights and a part of the batch."""
    fsdp: int = 1
    """Fully sharded data parallelism: each device holds a part of the weights and a part of the batch. The weights of
    one layer at a time are gathered to compute with them, and again in the backward pass."""
    tensor: int = 1
    """Tensor parallelism: each device computes a part of every layer."""

    @model_validator(mode="after")
    def _one_free_axis(self) -> MeshConfig:
        sizes = (self.data, self.fsdp, self.tensor)
        if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
            raise ValueError(f"mesh sizes must be positive, and at most one of them -1, not {sizes}")
        return self


class DecisionConfig(Section):
    """How logits become labels."""

    threshold: Literal["fixed", "tuned", "tuned_per_category", "calibrated"] = "tuned"
    """`fixed`: `value`. `tuned`: one threshold for all categories. `tuned_per_category`: one per category. Tuned
    thresholds maximise the official F1 on the held-out part (for the stance: accuracy). Each lies between two logits of
    held-out arguments, or beyond them all. `calibrated` (batch calibration): the mean held-out logit of each category
    plus one tuned number, the same for all."""
    value: float = Field(0.5, gt=0, lt=1)
    """fixed: the threshold, a probability."""

    @model_validator(mode="after")
    def _value_belongs_to_fixed(self) -> DecisionConfig:
        check_owners(self, {"value": ("fixed",)}, "threshold", self.threshold)
        return self


class LoggingConfig(Section):
    """Logs besides `metrics.jsonl`."""

    tensorboard: bool = True
    """Write event files for TensorBoard into the run folder."""
    wandb: Text | None = None
    """Weights & Biases project; needs the extra `wandb`. null: no logging there."""


class RuntimeConfig(Section):
    """The process that runs."""

    compilation_cache: Text | None = "~/.cache/jaxvalues/xla"
    """Folder of compiled programs that all runs share. null: no such cache."""
    features: Text | None = None
    """Folder that runs share, of two kinds of files: the output of frozen layers, where it is the same in every epoch
    (`tuning.dropout_below`), and the answers of language models in which nothing trains. null: the first are kept in
    memory, the second in the run folder; runs of a study share a folder of the study."""
    distributed: bool = False
    """Call `jax.distributed.initialize()` first: for TPU pods, SLURM and several hosts."""
    start_timeout: int = Field(1800, ge=1)
    """distributed: seconds in which all processes must have started. Hosts come up unevenly."""
    heartbeat_timeout: int = Field(100, ge=1)
    """distributed: seconds without a sign of life after which a process counts as dead, and the others end too."""


TRACED_OPTIMIZER = ("learning_rate", "warmup", "layer_decay", "weight_decay", "clip_norm")
TRACED_LOSS = ("label_smoothing", "gamma", "gamma_positive", "gamma_negative", "margin", "negative_scale", "beta")
TRACED_LOSS += ("prior_shift",)
"""The numbers that a compiled step takes as arguments."""


class Config(Section):
    """A whole config file: one run, or an ensemble of runs."""

    all_keys = "`jaxvalues schema --markdown`"

    name: Name = "run"
    """Name of the run. Default: the name of the file, without `.yaml`."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of new weights, data order and dropout."""
    init_seed: int | None = Field(None, ge=0, lt=2**32)
    """Seed of new weights alone: heads, prompts, whatever no checkpoint holds. null: that of `seed`."""
    output: Text = "runs/{name}-seed{seed}"
    """Run folder; `{name}` and `{seed}` are filled in."""
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
    """Several runs and their combination. null: one run, or one per fold (`data.folds`)."""
    logging: LoggingConfig = LoggingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Config:
        data = self.data
        places = {f"runtime.{key}": getattr(self.runtime, key) for key in ("compilation_cache", "features")}
        check_placeholders(self.output, "{name}", "{seed}")
        for key, place in {"output": self.output, **places}.items():
            if is_url(place):
                raise ValueError(f"{key}: {URL_REFUSED}, not {place}")
        if self.model.endpoint is not None:
            self._check_remote()
        elif (self.model.path is None) == (self.model.config is None):
            raise ValueError("give either model.path (a checkpoint folder or hub id) or model.config (random weights)")
        if self.model.config is not None and not (self.model.tokenizer or self.model.train_tokenizer):
            raise ValueError("model.config needs model.tokenizer or model.train_tokenizer")
        if isinstance(data.held_out, str) and data.held_out in (*data.report, data.train):
            raise ValueError(
                f"data.held_out is `{data.held_out}`, which is also trained on or reported: choose thresholds and the "
                "best step on other arguments"
            )
        if isinstance(data.held_out, float | int) and not 0 < data.held_out < 1:
            raise ValueError(
                f"data.held_out must be a fraction between 0 and 1 or the name of a split, not {data.held_out}"
            )
        if data.fold is not None and (data.folds is None or data.fold >= data.folds):
            raise ValueError(
                f"data.fold must be at least 0 and below data.folds, which is {data.folds}, not {data.fold}"
            )
        if data.folds is not None and isinstance(data.held_out, str):
            raise ValueError(
                f"data.folds holds out parts of the training split, but data.held_out names the split "
                f"`{data.held_out}`: set data.held_out=0.1 (folds replace it), or remove data.folds"
            )
        contrastive = self.loss.contrastive
        if contrastive is not None and self.training.accumulation > 1:
            raise ValueError(
                "loss.contrastive compares the arguments of a whole batch, which training.accumulation splits: set it "
                "to 1"
            )
        if data.train in data.report:
            raise ValueError(
                f"data.report contains the training split `{data.train}`; only other splits can be reported"
            )
        if list(data.buckets) != sorted(set(data.buckets)) or not data.buckets or data.buckets[0] < 1:
            raise ValueError(f"data.buckets must be increasing positive lengths, not {list(data.buckets)}")
        return self

    @model_validator(mode="after")
    def _quantizes_what_is_frozen(self) -> Config:
        if self.model.quantization is None:
            return self
        if self.tuning.method == "full":
            raise ValueError("model.quantization is for frozen weights, and tuning.method: full trains all of them")
        if self.mesh.fsdp != 1 or self.mesh.tensor != 1:
            raise ValueError("model.quantization: weights in few bits are not split, leave mesh.fsdp and mesh.tensor 1")
        return self

    def _check_remote(self) -> None:
        """Raise ValueError for what an endpoint cannot do."""
        form = self.formulation
        if form.kind not in ("answer", *GENERATED):
            raise ValueError(
                f"formulation.kind: {form.kind} needs a network here, and model.endpoint asks one elsewhere: use answer"
            )
        if form.stem is not None:
            raise ValueError("formulation.stem cannot be used with model.endpoint: remove it")
        if self.tuning.method != "none" or form.verbalizer.soft:
            what = "formulation.verbalizer.soft" if form.verbalizer.soft else f"tuning.method: {self.tuning.method}"
            raise ValueError(f"{what} trains, and nothing trains at model.endpoint: set tuning.method=none")
        if self.runtime.distributed:
            raise ValueError("runtime.distributed: one process asks model.endpoint, with many requests at once")

    @model_validator(mode="after")
    def _kinds_fit_methods(self) -> Config:
        kind, data, training = self.formulation.kind, self.data, self.training
        if self.formulation.asks_questions:
            rows = training.questions_per_step
            if rows is not None and rows % training.accumulation:
                raise ValueError(
                    f"training: questions_per_step {rows} is not divisible by accumulation {training.accumulation}"
                )
            if self.loss.contrastive is not None or not self.tuning.dropout_below:
                what = "loss.contrastive" if self.loss.contrastive is not None else "tuning.dropout_below: false"
                raise ValueError(f"{what} belongs to formulation.kind: classify, not to {kind}")
            if self.tuning.method == "head":
                raise ValueError(f"tuning.method: head trains a classifier head, and formulation.kind: {kind} has none")
            if kind in GENERATED and self.tuning.method != "none":
                raise ValueError(
                    f"formulation.kind: {kind} is for models as they are: set tuning.method: none, or train with answer"
                )
        elif data.negatives is not None:
            raise ValueError(
                "data.negatives samples questions about an argument, and formulation.kind: classify asks none"
            )
        elif training.questions_per_step is not None:
            raise ValueError("training.questions_per_step counts questions, and formulation.kind: classify asks none")
        elif training.batch_size % training.accumulation:
            raise ValueError(
                f"training: batch_size {training.batch_size} is not divisible by accumulation {training.accumulation}"
            )
        if data.full_held_out and data.shots is data.fraction is None:
            raise ValueError("data.full_held_out belongs to data.shots and data.fraction, and neither is given")
        if data.shots is not None and data.fraction is not None:
            raise ValueError("give data.shots or data.fraction, not both")
        return self

    @model_validator(mode="after")
    def _task_has_categories(self) -> Config:
        if self.data.task == "values":
            return self
        of_categories = {
            **{f"formulation.kind: {kind}": self.formulation.kind == kind for kind in ("open_answer", *GENERATED)},
            "formulation.examples": self.formulation.examples is not None,
            "formulation.shortlist": self.formulation.shortlist is not None,
            "formulation.descriptions": self.formulation.descriptions is not None,
            "formulation.heads: multiple": self.formulation.heads == "multiple",
            "data.negatives": self.data.negatives is not None,
            "tuning.init: labels": self.tuning.init == "labels",
            "loss.contrastive": self.loss.contrastive is not None,
            "decision.threshold: tuned_per_category": self.decision.threshold == "tuned_per_category",
            "an ensemble (ensemble, data.folds)": self.is_ensemble,
        }
        for what in (what for what, is_there in of_categories.items() if is_there):
            raise ValueError(f"{what} needs the 20 value categories, which data.task: {self.data.task} does not have")
        return self

    @property
    def folder(self) -> Path:
        """The run folder, with `{name}` and `{seed}` filled in."""
        return user_path(self.output.replace("{name}", self.name).replace("{seed}", str(self.seed)))

    def explicit(self) -> Config:
        """This config with the defaults that depend on other keys filled in: learning rate, template, name of the
        model at an endpoint."""
        changes: dict[str, Any] = {}
        form, model = self.formulation, self.model
        if model.endpoint is not None:
            form = form.model_copy(update={"chat": True})
            changes["model"] = model.model_copy(update={"id": model.id or model.path})
        if self.optimizer.learning_rate is None:
            rate, _ = LEARNING_RATES[self.tuning.method]
            changes["optimizer"] = self.optimizer.model_copy(update={"learning_rate": rate})
        if form.template is None:
            form = form.model_copy(update={"template": form.default_template(self.data.task)})
        changes["formulation"] = form
        return self.model_copy(update=changes)

    @property
    def start_seed(self) -> int:
        """The seed of new weights."""
        return self.seed if self.init_seed is None else self.init_seed

    @property
    def is_ensemble(self) -> bool:
        """Whether this config asks for several runs (members, seeds or folds) and their combination."""
        return self.ensemble is not None or (self.data.folds is not None and self.data.fold is None)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The bucket lengths in use: those below `max_length`, and `max_length` itself."""
        return (*(length for length in self.data.buckets if length < self.data.max_length), self.data.max_length)

    def to_yaml(self) -> str:
        """All keys and values as YAML, which reads back as an equal config."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def decisive(self) -> dict[str, Any]:
        """The settings that determine the scores: all but names, locations and the layout on devices."""
        tree = self.model_dump(mode="json", exclude={"name", "output", "mesh", "logging", "runtime"})
        for section, key in (("data", "dir"), ("model", "path"), ("model", "scan"), ("model", "remat")):
            del tree[section][key]
        if self.init_seed is None:  # fingerprints stay those of versions without this key
            del tree["init_seed"]
        model, remote = tree["model"], tree["model"].pop("remote")
        asked = {key: model.pop(key) for key in ("endpoint", "id", "answers", "max_requests", "max_cost")}
        if self.model.endpoint is not None:
            model |= {"endpoint": asked["endpoint"], "id": asked["id"] or self.model.path}
            model["remote"] = {key: value for key, value in remote.items() if key not in LAYOUT}
        return tree

    def program(self) -> str:
        """The settings that determine the compiled steps, as JSON; runs with the same ones share executables.

        Traced numbers are left out, and so are settings that only determine the batches and their number.
        """
        tree = self.decisive()
        tree["task"] = self.data.task
        for section in ("seed", "init_seed", "data", "decision", "ensemble"):
            tree.pop(section, None)
        tree["training"] = {"accumulation": self.training.accumulation}
        tree["model"] = self.model.model_dump(
            exclude={"path", "revision", "tokenizer", "tokenizer_revision", "train_tokenizer"}
        )
        for name in TRACED_OPTIMIZER:
            del tree["optimizer"][name]
        for name in ("template", "descriptions", "chat", "system", "stem", "examples", "shortlist"):
            del tree["formulation"][name]
        loss, contrastive = tree["loss"], tree["loss"]["contrastive"]
        tree["loss"] = {"kind": loss["kind"]}
        if contrastive is not None:
            tree["loss"] |= {key: contrastive[key] for key in ("use", "embedding", "projection_size", "positives")}
        return json.dumps(tree, sort_keys=True)

    def fingerprint(self) -> str:
        """Short hash of `decisive`. Weights and data are not part of it; they have checksums of their own.

        Keys that are null are left out, so that a new optional key does not make the runs of a study strange to it.
        """
        return hashlib.sha256(json.dumps(without_nulls(self.decisive()), sort_keys=True).encode()).hexdigest()[:16]
