"""`jaxvalues export RUN --to peft DIR`: what a run trained as an adapter that peft.PeftModel.from_pretrained loads.

adapter_config.json · adapter_model.safetensors     what trained, under PEFT's names
jaxvalues.json       what else predicting takes: template, answer words, thresholds, settings of the base model
README.md            the model card, which shows how to use it
scores.json · environment.json     the run's own
tokenizer.json …     the tokenizer
base/                the base model, where it was drawn at random and so is nowhere else
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.formulations import CAUSAL, SEQ2SEQ
from jaxvalues.interop.exportable import check_peft
from jaxvalues.interop.model_card import adapter_card
from jaxvalues.interop.new_folder import check_new, new_folder
from jaxvalues.interop.predicting import COPIED, DROPPED, LABELS, OURS, for_predicting
from jaxvalues.models import (
    head_modules,
    head_settings,
    hub_name,
    save_causal_lm,
    save_masked_lm,
    save_model,
    save_t5,
    ungroup,
)
from jaxvalues.models.checkpoints.sequence_classification import NAMINGS
from jaxvalues.run.console import RunConsole
from jaxvalues.run.predict import reopen, restore
from jaxvalues.run.provenance import write_json
from jaxvalues.run.system import System
from jaxvalues.training.sharding import single_mesh
from jaxvalues.tuning import Params
from jaxvalues.tuning.peft_folder import save_adapter
from jaxvalues.tuning.peft_format import PeftTarget, to_peft

BASE = "base"  # the folder in an export that holds a base model of random weights


class _Task(NamedTuple):
    """What a base model does, as PEFT and transformers call it."""

    task_type: str | None  # PEFT has none for masked language models
    auto_class: str


def export_peft(
    run: str | Path, target: str | Path, *, overrides: tuple[str, ...] = (), console: Console | None = None
) -> None:
    """Write what a finished run trained to the folder `target`, which must be new, as an adapter for PEFT.

    `overrides` change where things are: `model.path=…`. Raises ConfigError that names the setting where PEFT has no
    such adapter, UserError for what is not as it must be; nothing is left then.
    """
    target, run_console = Path(target), RunConsole(console or Console())
    check_new(target)
    folder, config = reopen(run, overrides)
    hf_config = {key: value for key, value in folder.hf_config().items() if key not in DROPPED}
    check_peft(config, hf_config)
    system, weights = restore(folder, config, single_mesh())

    # The adapter: vectors as they enter, matrices as they trained, a head as transformers' modules.
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

    # What else predicting takes.
    ours = for_predicting(config, system, folder.decision())
    ours |= {
        "categories": CATEGORIES,
        "model_type": hf_config["model_type"],
        "auto_class": task.auto_class,
        "model": {},
    }
    if kind == "classify":
        of_labels = {key: LABELS[key] for key in ("num_labels", "problem_type")}
        ours["model"] = of_labels | head_settings(hf_config["model_type"], system.network.module)
    else:
        ours |= _questions(config, system)
    tokenizer, is_random = folder.tokenizer(), config.model.config is not None
    with new_folder(target) as partial:
        tokenizer.save_pretrained(partial)
        save_adapter(partial, content, tensors)
        write_json(partial / f"{OURS}.json", ours)
        if is_random:
            ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
            _save_base(partial / BASE, config, ends | hf_config | ours["model"], system.network.module, weights.frozen)
        for name in COPIED:
            shutil.copyfile(folder.path / name, partial / name)
        (partial / "README.md").write_text(adapter_card(partial), encoding="utf-8")
    if is_random:
        run_console.print(f"the base model has random weights that are nowhere else, so {target / BASE} holds them")
    else:
        run_console.print(f"the adapter belongs to the base model {base}, which is not copied")
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
    """What a run calls its base model: the name on the hub, or that of its folder and no place on this machine."""
    path = config.model.path
    return BASE if path is None else hub_name(path) or Path(path).name


def _questions(config: Config, system: System) -> dict[str, Any]:
    """Questions as texts and ids to put together, and the words that answer them where each is one token."""
    question_rows, template = system.formulation.question_rows, system.template
    content = {
        "context": template.before,
        "question": template.after,
        "descriptions": template.descriptions,
        "begin": question_rows.before,
        "end": question_rows.after,
    }
    if system.hf_config["model_type"] in SEQ2SEQ:
        content["decoder_start_token_id"] = system.network.module.config.decoder_start_token_id
    if config.formulation.kind == "open_answer" or config.formulation.verbalizer.calibrate:
        return content
    verbalizer = system.formulation.verbalizer
    if verbalizer.tokens == 1:
        ids = verbalizer.ids[:, 0]
        content["words"] = {"yes": ids[verbalizer.is_yes].tolist(), "no": ids[~verbalizer.is_yes].tolist()}
    return content


def _save_base(folder: Path, config: Config, hf_config: dict[str, Any], module: Any, params: Params) -> None:
    """Write the base model as a checkpoint that transformers loads."""
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
