"""The config schema and how a config file becomes one: YAML, one optional `base:`, dotted overrides.

A config file holds only what differs from the defaults below. Everything is checked when it is read: an unknown key
names the nearest known one, and combinations that make no sense fail with a sentence before anything is loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jaxvalues.errors import ConfigError


class Section(BaseModel):
    """Base of every section: immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class DataConfig(Section):
    """Which arguments train, tune the decision and are reported."""

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
    report: tuple[str, ...] = ("validation", "test")
    """Splits whose scores are reported; never used to choose anything."""
    max_length: int = Field(256, ge=4)
    """Longest input in tokens; longer ones are truncated (counted and printed)."""
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


class PoolingConfig(Section):
    """How token states become the vector that the heads see."""

    over: Literal["cls", "mean"] = "cls"
    """First token, or mean over real tokens."""
    layers: tuple[int, ...] = Field((-1,), min_length=1)
    """Hidden states to pool, as in HF `hidden_states`: 0 = embeddings, k = after layer k, -1 = last."""
    combine: Literal["concat", "mean"] = "concat"
    """How several layers are combined."""


class FormulationConfig(Section):
    """How an argument becomes model input, and model output becomes logits [B, C]."""

    kind: Literal["classify"] = "classify"
    template: str = "cls"
    """Name of a template that comes with jaxvalues (`cls`, `joined`) or path of a text file."""
    heads: Literal["single", "multiple"] = "single"
    """One linear layer with 20 outputs, or one classifier (with its own dropout) per category."""
    pooling: PoolingConfig = PoolingConfig()
    head_dropout: float = Field(0.1, ge=0, lt=1)


class TuningConfig(Section):
    """What trains."""

    method: Literal["full", "last_layers"] = "full"
    layers: int | None = Field(None, ge=1)
    """For last_layers: how many of the top encoder layers train, besides the heads."""

    @model_validator(mode="after")
    def _layers_belong_to_last_layers(self) -> TuningConfig:
        if (self.method == "last_layers") != (self.layers is not None):
            raise ValueError("`layers` must be given with method: last_layers, and only with it")
        return self


class LossConfig(Section):
    """What is minimised."""

    kind: Literal["bce"] = "bce"


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    learning_rate: float = Field(2e-5, gt=0)
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
    """Tuned thresholds maximise the official F1 on the held-out part."""
    value: float = Field(0.5, gt=0, lt=1)
    """The threshold when it is fixed."""


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
        if data.train in data.report:
            raise ValueError(f"data.report names the training split `{data.train}`")
        if list(data.buckets) != sorted(set(data.buckets)) or not data.buckets or data.buckets[0] < 1:
            raise ValueError(f"data.buckets must be increasing positive lengths, not {list(data.buckets)}")
        return self

    @property
    def folder(self) -> Path:
        """The run folder, with its placeholders filled in."""
        return Path(self.output.replace("{name}", self.name).replace("{seed}", str(self.seed))).expanduser()

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

    def fingerprint(self) -> str:
        """Short hash of `decisive`; weights and data are told apart by their own checksums."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a config file with its `base:` chain and dotted overrides (`optimizer.learning_rate=1e-4`).

    `base:` is a path relative to the file that names it. `name` defaults to the file's stem.
    Raises ConfigError with one sentence a problem.
    """
    path = Path(path)
    tree = {"name": path.stem, **_read_with_base(path, ())}
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree, where=str(path))


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Validate a nested dict; `where` names its origin in error messages."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {sentence}" for sentence in _sentences(error.errors()))) from None


def json_schema() -> dict[str, Any]:
    """JSON Schema of a config file, for completion and checks in editors."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {"type": "string", "description": "Config file this one starts from."}
    return schema


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key written twice (PyYAML silently keeps the last) and reads 1e-5 as the number it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = []
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, which keys beside it may override
                continue
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"key `{key}` is given twice, again in line {line}")
            keys.append(key)
        return super().construct_mapping(node, deep)


# YAML 1.2's floats; PyYAML follows 1.1, where 1e-5 is a string.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base:` leads back to the file itself")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such config file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of sections, not {type(tree).__name__}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: `base:` must name one config file, not {base!r}")
    return _merge(_read_with_base(path.parent / base, (*seen, path.resolve())), tree)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override `{override}` must read key=value, e.g. optimizer.learning_rate=1e-4")
    if key == "base":
        raise ConfigError(f"override `{override}`: `base` belongs in a config file, not among the overrides")
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError:
        raise ConfigError(f"override `{override}`: the value is not valid YAML") from None
    *parents, leaf = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        else:
            tree[parent] = dict(tree[parent])
        tree = tree[parent]
    tree[leaf] = value


def _sentences(problems: list[Any]) -> list[str]:
    """Pydantic's problems as one sentence a key."""
    by_key: dict[str, list[Any]] = {}
    for problem in problems:
        by_key.setdefault(_key(problem), []).append(problem)
    return [_sentence(key, problems) for key, problems in by_key.items()]


def _key(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return ".".join(location)
    # Pydantic names the member of a union as if it were a key.
    members = ("float", "str", "int", "constrained-int", "bool")
    return ".".join(part for part in location if part not in members and not part.startswith("literal["))


def _sentence(key: str, problems: list[Any]) -> str:
    """What is wrong with one key; a value that fits no member of a union has a problem with each of them."""
    first = problems[0]
    if first["type"] == "extra_forbidden":
        *section, name = key.split(".")
        known = _keys_at(section)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(known)}"
        return f"unknown key `{key}`; {hint}"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    expected = " or ".join(problem["msg"][0].lower() + problem["msg"][1:] for problem in problems)
    return f"`{key}`: {expected.replace(' or input should be', ' or')}, not {first['input']!r}"


def _keys_at(location: list[str]) -> list[str]:
    section: Any = Config
    for part in location:
        kinds = getattr(section.model_fields[part].annotation, "__args__", (section.model_fields[part].annotation,))
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields) + ["base"] * (section is Config)
