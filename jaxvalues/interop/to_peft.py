"""`jaxvalues export RUN --to peft DIR`: a run as an adapter that peft.PeftModel.from_pretrained loads.

adapter_config.json, adapter_model.safetensors     the trained parameters, under PEFT's names
jaxvalues.json       the other inference settings: template, answer words, thresholds, settings of the base model
README.md            the model card, which shows how to use the adapter
scores.json, environment.json     copies of the run's files
tokenizer.json, …    the tokenizer
base/                the base model, if its weights are random
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.config.writing import write_json
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.formulations import CAUSAL, SEQ2SEQ
from jaxvalues.formulations.prompt_rows import PromptRows
from jaxvalues.formulations.question_rows import QuestionRows
from jaxvalues.interop.atomic_folder import atomic_folder, check_new_folder
from jaxvalues.interop.exportable import check_peft
from jaxvalues.interop.inference_settings import (
    COPIED_FILES,
    DROPPED_KEYS,
    LABEL_SETTINGS,
    SETTINGS_KEY,
    inference_settings,
)
from jaxvalues.interop.model_card import adapter_card
from jaxvalues.models import (
    fetch,
    head_modules,
    head_settings,
    hub_name,
    masked_lm_settings,
    open_tensors,
    save_causal_lm,
    save_masked_lm,
    save_model,
    save_t5,
    ungroup,
)
from jaxvalues.models.checkpoints.sequence_classification import NAMINGS
from jaxvalues.run.console import RunConsole
from jaxvalues.run.predict import reopen, restore
from jaxvalues.run.system import System
from jaxvalues.training.sharding import single_mesh
from jaxvalues.tuning import Params
from jaxvalues.tuning.peft_folder import save_adapter
from jaxvalues.tuning.peft_format import PeftTarget, to_peft

BASE = "base"  # the folder of an export with the base model, if its weights are random


class _Task(NamedTuple):
    """The names of a task in PEFT and transformers."""

    task_type: str | None  # PEFT has none for masked language models
    auto_class: str


def export_peft(
    run: str | Path, target: str | Path, *, overrides: tuple[str, ...] = (), console: Console | None = None
) -> None:
    """Export the trained parameters of a finished run to the new folder `target`, as an adapter for PEFT.

    `overrides` change paths: `model.path=…`. Raises ConfigError, naming the setting, if PEFT has no such adapter;
    UserError if the run or its base model is incomplete. Then nothing is written.
    """
    target, run_console = Path(target), RunConsole(console or Console())
    check_new_folder(target)
    folder, config = reopen(run, overrides)
    hf_config = {key: value for key, value in folder.hf_config().items() if key not in DROPPED_KEYS}
    check_peft(config, hf_config)
    system, weights = restore(folder, config, single_mesh())

    # The adapter: prompts and prefixes as the network reads them, the head as transformers' modules.
    task, base, kind = _task(config, hf_config["model_type"]), _base_name(folder.config()), config.formulation.kind
    bound = system.network.tuning.bind(*weights)
    modules = None
    if kind == "classify":
        modules = head_modules(hf_config["model_type"], system.network.module, ungroup(bound.params))
    content, tensors = to_peft(
        config.tuning,
        PeftTarget(hf_config, task.task_type, base),
        weights.trainable,
        prompt=bound.prompt,
        prefix=bound.prefix,
        modules=modules,
    )
    content["revision"] = config.model.revision  # of the base model

    # The other inference settings.
    is_random = config.model.config is not None
    settings = inference_settings(config, system, folder.decision())
    settings |= {
        "categories": CATEGORIES,
        "model_type": hf_config["model_type"],
        "auto_class": task.auto_class,
        "model": {},
    }
    of_base: dict[str, Any] = {}
    if kind == "classify":
        of_labels = {key: LABEL_SETTINGS[key] for key in ("num_labels", "problem_type")}
        of_base = of_labels | head_settings(hf_config["model_type"], system.network.module)
        # A base may be a classifier of other labels. cls_dropout is no argument of from_pretrained, and training alone
        # follows it.
        of_call = {key: value for key, value in of_base.items() if key != "cls_dropout"}
        settings["model"] = of_call | {"ignore_mismatched_sizes": True}
    else:
        settings |= _questions(config, system)
        if kind == "masked_choice" and not is_random:
            names = open_tensors(fetch(config.model.path, config.model.revision))
            settings["model"] = masked_lm_settings(hf_config, names)
    tokenizer = folder.tokenizer()
    with atomic_folder(target) as partial:
        tokenizer.save_pretrained(partial)
        save_adapter(partial, content, tensors)
        write_json(partial / f"{SETTINGS_KEY}.json", settings)
        if is_random:
            ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
            _save_base(partial / BASE, config, ends | hf_config | of_base, system.network.module, weights.frozen)
        for name in COPIED_FILES:
            shutil.copyfile(folder.path / name, partial / name)
        (partial / "README.md").write_text(adapter_card(partial), encoding="utf-8")
    if is_random:
        run_console.print(f"the base model has random weights, which are saved in {target / BASE}")
    else:
        run_console.print(f"the adapter needs the base model {base}, which is not copied")
    run_console.print(f"wrote {target}, an adapter for PEFT; its README.md shows how to use it")


def _task(config: Config, model_type: str) -> _Task:
    if config.formulation.kind == "classify":
        return _Task("SEQ_CLS", "AutoModelForSequenceClassification")
    if model_type in CAUSAL:
        return _Task("CAUSAL_LM", "AutoModelForCausalLM")
    if model_type in SEQ2SEQ:
        return _Task("SEQ_2_SEQ_LM", "AutoModelForSeq2SeqLM")
    return _Task(None, "AutoModelForMaskedLM")


def _base_name(config: Config) -> str:
    """The name of the base model: its name on the hub, or the last part of its local path."""
    path = config.model.path
    return BASE if path is None else hub_name(path) or Path(path).name


def question_settings(question_rows: QuestionRows) -> dict[str, Any]:
    """The formats and token ids that the rows of questions are built from, and the length they are truncated to."""
    template = question_rows.template
    return {
        "context": template.context_format,
        "question": template.question_formats,
        "descriptions": template.descriptions,
        "begin": question_rows.start_ids,
        "end": question_rows.end_ids,
        "branches": question_rows.branches,
        "max_row_length": question_rows.max_row_length,
    }


def _questions(config: Config, system: System) -> dict[str, Any]:
    """The settings of the questions, and the answer words if each is one token."""
    content = question_settings(system.formulation.question_rows)
    if system.hf_config["model_type"] in SEQ2SEQ:
        content["decoder_start_token_id"] = system.network.module.config.decoder_start_token_id
    if config.formulation.kind == "open_answer" or config.formulation.verbalizer.calibrate:
        return content
    if isinstance(system.formulation.question_rows, PromptRows):  # the card's code writes no chats and no BOS
        return content
    verbalizer = system.formulation.verbalizer
    if verbalizer.tokens == 1:
        ids = verbalizer.ids[:, 0]
        content["words"] = {"yes": ids[verbalizer.is_yes].tolist(), "no": ids[~verbalizer.is_yes].tolist()}
    return content


def _save_base(folder: Path, config: Config, hf_config: dict[str, Any], module: Any, params: Params) -> None:
    """Write the base model as a checkpoint in transformers' format."""
    model_type = hf_config["model_type"]
    if config.formulation.kind == "classify":
        save_model(folder, hf_config, params["encoder"], prefix=NAMINGS[model_type].encoder)
    elif model_type in CAUSAL:
        save_causal_lm(folder, hf_config, params)
    elif model_type in SEQ2SEQ:
        start = {"decoder_start_token_id": module.config.decoder_start_token_id}
        save_t5(folder, hf_config | start, params)
    else:
        save_masked_lm(folder, hf_config, params)
