"""What a run was made of: versions, devices, git, checksums; and whether a folder holds the same run."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxvalues.config import Config, load_config
from jaxvalues.config.reading import entry, read_file, read_json
from jaxvalues.config.run_format import RUN_FORMAT, run_format
from jaxvalues.config.trees import flat
from jaxvalues.data.arguments import Split
from jaxvalues.data.held_out import HELD_OUT
from jaxvalues.data.tokenizer_files import tokenizer_hash
from jaxvalues.errors import ConfigError, cut, name_list
from jaxvalues.models.checkpoints.weights import weight_files
from jaxvalues.remote.store import STORE
from jaxvalues.templates.synonyms import synonyms_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from jaxvalues.data.batches import Tokens
    from jaxvalues.data.held_out import Parts
    from jaxvalues.formulations import AnyTemplate
    from jaxvalues.formulations.examples import Examples
    from jaxvalues.run.base import Base

PACKAGES = ("jaxvalues", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "tokenizers", "numpy")

TEMPLATE, SYNONYMS, EXAMPLES = "template.txt", "synonyms.tsv", "examples.json"
"""In a run folder: the text of its template, descriptions included; the words that open answers are searched for; the
arguments that prompts show as examples."""


def kept_texts(
    template: AnyTemplate, synonyms: Mapping[str, Sequence[str]] | None, examples: Examples | None
) -> dict[str, str]:
    """What a run folder keeps of the texts that the run reads, {file name: content}."""
    texts = {TEMPLATE: template.text}
    if synonyms is not None:
        texts[SYNONYMS] = synonyms_text(synonyms)
    if examples is not None:
        texts[EXAMPLES] = examples.text
    return texts


EARLIER_CUT = (
    "other training data, or a held-out part of an earlier version, which compared conclusions letter by letter"
)


def describe_environment(
    config: Config, base: Base, parts: Parts, tokenizer: PreTrainedTokenizerBase | None = None
) -> dict[str, Any]:
    """Contents of a run's environment.json; the ids of the arguments that were drawn among them, if any were.

    `hub` is there where a checkpoint came from the Hugging Face hub: the commit that was taken.
    """
    drawn = {"trained_on": list(parts.training.ids), "chosen_on": list(parts.held_out.ids)}
    return describe_process() | {
        "config": config.fingerprint(),
        "base": base.identity,
        **({} if base.commit is None else {"hub": base.commit}),
        **({} if tokenizer is None else {"tokenizer": tokenizer_hash(tokenizer)}),
        "data": {name: checksum(split) for name, split in parts.by_name.items()},
        **({} if config.data.shots is config.data.fraction is None else drawn),
    }


def describe_process() -> dict[str, Any]:
    """Where something is computed, by which source, and in which format the folder is."""
    return {
        "format": RUN_FORMAT,
        "versions": package_versions(),
        "platform": platform.platform(),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "git": _git_commit(),
    }


def start_facts(config: Config) -> dict[str, Any]:
    """What must be the same on all processes of a run from the start: config, code and versions.

    Where data, weights and compiled programs lie may differ from host to host.
    """
    tree = config.model_dump(mode="json", exclude={"runtime"})
    del tree["data"]["dir"], tree["model"]["path"]
    return flat(tree) | flat({"code": code_hash(), "version": package_versions()})


@functools.cache
def code_hash() -> str:
    """The hash of all source files of the package."""
    code = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        code.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return code.hexdigest()


def input_facts(
    base: Base, parts: Parts, tokens: Mapping[str, Tokens], texts: Mapping[str, str], proposed: np.ndarray | None
) -> dict[str, Any]:
    """What must be the same on all processes once data and tokenizer are read.

    `tokens` are those of {part: tokens}, `texts` those of {file name: content}, `proposed` is what a shortlist proposes
    for the held-out part. Weights are hashed by process 0 alone, so others compare the config and the sizes of the
    files.
    """
    files = () if base.folder is None else weight_files(base.folder)
    return (
        {f"data {name}": checksum(split) for name, split in parts.by_name.items()}
        | {f"tokens {name}": ids_hash(each) for name, each in tokens.items()}
        | {f"questions {name}": questions_hash(each) for name, each in tokens.items()}
        | {f"text {name}": _text_hash(text) for name, text in texts.items()}
        | {"shortlist": None if proposed is None else hashlib.sha256(proposed.tobytes()).hexdigest()}
        | {f"weights {file.name}": f"{file.stat().st_size} bytes" for file in files}
        | {"weights": base.identity, "model config": _text_hash(json.dumps(base.hf_config, sort_keys=True))}
    )


def ids_hash(tokens: Tokens) -> str:
    """The hash of the token ids of all rows."""
    digest = hashlib.sha256(b"" if tokens.beginning is None else np.asarray(tokens.beginning, np.int32).tobytes())
    for row in tokens.ids:
        digest.update(np.asarray(row, np.int32).tobytes() + b"|")
    return digest.hexdigest()


def questions_hash(tokens: Tokens) -> str | None:
    """The hash of the questions that branch from the rows; None without any."""
    questions = tokens.questions
    if questions is None:
        return None
    digest = hashlib.sha256()
    for table in (questions.argument, questions.categories, questions.question_ids, questions.answer_ids):
        array = np.zeros(0) if table is None else table
        digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array, np.int32).tobytes())
    return digest.hexdigest()


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(split: Split) -> str:
    """SHA-256 over a split's texts and labels, wherever it was read from."""
    digest = hashlib.sha256()
    for argument in split.arguments:
        fields = (argument.id, argument.conclusion, argument.stance, argument.premise)
        digest.update("\t".join(fields).encode() + b"\n")
    if split.labels is not None:
        digest.update(split.labels.tobytes())
    return digest.hexdigest()


def read_environment(folder: Path) -> dict[str, Any]:
    """The environment.json of a run folder. Raises UserError for what a run did not write."""
    path = folder / "environment.json"
    content = read_json(path, "what the run was made of")
    entry(content, "base", (str, type(None)), path, "what the weights are")
    entry(content, "data", dict, path)
    return content


def read_network(folder: Path) -> dict[str, Any]:
    """The model/config.json of a run folder. Raises UserError for what a run did not write."""
    path = folder / "model/config.json"
    content = read_json(path, "the network of the run")
    entry(content, "model_type", str, path)
    return content


def check_same_run(
    folder: Path,
    config: Config,
    environment: dict[str, Any],
    texts: Mapping[str, str],
    hf_config: Mapping[str, Any] | None = None,
) -> None:
    """Raise ConfigError, saying what differs, unless `folder` holds a run of this config, weights, data and `texts`.

    Texts, {file name: content}, can differ under the same name in the config: they may be a user's files. So can the
    network, whose config.json is `hf_config`, and the tokenizer. A run from before tokenizers were recorded resumes
    with the one that is found.
    """
    check_run_format(folder)
    changed = changes(read_run_config(folder), config)
    before = read_environment(folder)
    said = [f"{key} {_value(old)} → {_value(new)}" for key, (old, new) in changed.items()]
    if (
        config.model.endpoint is None and before["base"] != environment["base"]
    ):  # those of an endpoint are in the config
        said.append("other weights")
    if before["data"] != environment["data"]:
        said.append(EARLIER_CUT if is_earlier_cut(config, before, environment["data"]) else "other data")
    if hf_config is not None:
        said += [f"model.config {key}" for key in _differing(read_network(folder), hf_config)]
    if "tokenizer" in environment and before.get("tokenizer", environment["tokenizer"]) != environment["tokenizer"]:
        said.append("other tokenizer")
    if "init_from" in environment and environment["init_from"] != before.get("init_from"):
        said.append("other content of tuning.init_from")  # which only a run without checkpoints looks at again
    for name, text in texts.items():
        if not (folder / name).is_file() or read_file(folder / name) != (text + "\n").encode():
            said.append(_OTHER[name])
    if said:
        store = folder / STORE
        keep = f" (model.answers={store} keeps what was answered)" if config.model.endpoint and store.exists() else ""
        raise ConfigError(
            f"{folder} holds a run that differs ({name_list(said, separator='; ')}): "
            f"give another output=FOLDER{keep}, or remove it"
        )


_OTHER = {TEMPLATE: "other text in template or descriptions", SYNONYMS: "other synonyms", EXAMPLES: "other examples"}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a network's config.json that differ, with both values; what only says who wrote it is left out."""
    for key in sorted((before.keys() | now.keys()) - {"transformers_version", "_name_or_path", "dtype", "torch_dtype"}):
        if before.get(key) != now.get(key):
            yield f"{key} {_value(before.get(key))} → {_value(now.get(key))}"


def is_earlier_cut(config: Config, before: Mapping[str, Any], data: Mapping[str, str]) -> bool:
    """Whether a run of an earlier version may differ in its held-out part alone, because it compared conclusions letter
    by letter. `before` is its environment.json, `data` has the checksums of today's parts."""
    changed = {name for name, digest in data.items() if before["data"].get(name) != digest}
    by_conclusion = not isinstance(config.data.held_out, str) and config.data.held_out_by == "conclusion"
    return before.get("format", 1) == 1 and by_conclusion and changed <= {config.data.train, HELD_OUT}


def read_run_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a run folder, as the version that wrote it meant it.

    The batches of questions of format 1 are left open: whoever predicts needs none (see `check_run_format`).
    """
    if run_format(folder) == 1:
        overrides = ("training.questions_per_step=null", *overrides)
    return load_config(folder / "config.yaml", tuple(overrides))


def check_run_format(folder: Path) -> None:
    """Raise ConfigError if an earlier version began a run in `folder` whose batches this version makes otherwise."""
    if run_format(folder) == 1 and read_run_config(folder).formulation.asks_questions:
        raise ConfigError(
            f"{folder} holds a run of an earlier version, in which training.batch_size counted single questions unless "
            "they branched, and now counts arguments: finish it with that version, or give another output=FOLDER"
        )
    check_trained_parts(folder)


def check_trained_parts(folder: Path) -> None:
    """Raise ConfigError if an earlier version trained fewer parameters with `last_layers` than this version does."""
    if run_format(folder) != 1 or (config := read_run_config(folder)).tuning.method != "last_layers":
        return
    if read_network(folder)["model_type"] == "gpt2" or config.formulation.kind == "masked_choice":
        raise ConfigError(
            f"{folder} holds a run of an earlier version, in which tuning.method last_layers kept what is above the "
            "layers of this network frozen, and now trains it: use that version, or train the run again"
        )


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The keys that decide the numbers and differ: {dotted key: (old value, new value)}; None where one is absent."""
    before, after = flat(old.decisive()), flat(new.decisive())
    keys = [*after, *(key for key in before if key not in after)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The `differences` with which a run cannot be resumed, or predict as it did."""
    return {key: values for key, values in differences(old, new).items() if key not in _FREE}


_FREE = ("training.eval_batch_size", "training.log_every", "training.warn_after", "training.checkpoint_every")
"""Keys that decide how much memory a run takes, what it says, and when it saves: a stopped run resumes with others."""


def _value(value: Any) -> str:
    """A value in a message, cut where it is long."""
    return cut(str(value), 40)


def package_versions() -> dict[str, str | None]:
    """{package that may decide the numbers: its version}, and Python's."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source that runs, with `+` when it was changed since; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
