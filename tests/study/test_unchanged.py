"""Finished runs of a study, when what they were made of has changed under the same names or is no longer here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from runs import ROOT
from safetensors.numpy import save_file
from studies import BASE, planned, pretend

from jaxvalues.config.writing import write_json
from jaxvalues.errors import UserError
from jaxvalues.run.base import Base
from jaxvalues.run.provenance import SYNONYMS
from jaxvalues.study.budget import UNKNOWN, fit_budget, save_budget, sizes_of
from jaxvalues.study.compare import compare, results_of
from jaxvalues.study.files import save_study
from jaxvalues.study.plan import Plan
from jaxvalues.study.unchanged import check_unchanged
from jaxvalues.templates.synonyms import load_synonyms, synonyms_text

ONE_SEED = "repeated.seed=[0]"


def pretend_all(plan: Plan) -> list[Path]:
    """Write every run; their folders."""
    planned_runs = [one for system in plan.systems for one in plan.runs(system, {})]
    for one in planned_runs:
        pretend(one.config)
    return [one.config.folder for one in planned_runs]


def test_other_labels_or_training_data_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "jaxvalues/data/sample", data)
    plan = planned(tmp_path, ONE_SEED, f"data.dir={data}")
    (first, *_) = pretend_all(plan)
    check_unchanged(plan)
    for split in ("test", "training"):
        labels = data / f"labels-{split}.tsv"
        before = labels.read_text(encoding="utf-8")
        head, row, rest = before.split("\n", 2)
        flipped = [row.split("\t")[0], *(str(1 - int(value)) for value in row.split("\t")[1:])]
        labels.write_text("\n".join([head, "\t".join(flipped), rest]), encoding="utf-8")
        with pytest.raises(UserError, match=rf"{first} was made with other data \({split} differs\): remove the runs"):
            check_unchanged(plan)
        labels.write_text(before, encoding="utf-8")
    check_unchanged(plan)


def test_another_text_and_other_weights_are_refused_before_anything_runs(tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("{premise} {stance} {conclusion}\n", encoding="utf-8")
    plan = planned(tmp_path, ONE_SEED, f"formulation.template={template}")
    (first, *_) = pretend_all(plan)
    check_unchanged(plan)
    template.write_text("Otherwise: {premise} {stance} {conclusion}\n", encoding="utf-8")
    with pytest.raises(UserError, match="was made with another text in its template or descriptions"):
        compare(plan.study, Console(quiet=True))
    template.unlink()  # where a report is made elsewhere
    check_unchanged(plan)
    environment = first / "environment.json"
    write_json(environment, {"base": "random weights, seed 7", "data": {}})
    with pytest.raises(UserError, match="was made with other weights"):
        check_unchanged(plan)


def test_other_synonyms_are_refused(tmp_path: Path) -> None:
    file, own = tmp_path / "mine.tsv", synonyms_text(load_synonyms())
    file.write_text(f"{own}\n", encoding="utf-8")
    network = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    changes = {
        "formulation": {"kind": "open_answer", "template": "open_answer", "synonyms": str(file)},
        "model.config": network,
    }
    systems = {"full": {"tuning.method": "full"}, "lora": {"tuning.method": "lora"}}
    plan = planned(tmp_path, ONE_SEED, changes=changes, scientific={"systems": systems})
    for folder in pretend_all(plan):
        (folder / SYNONYMS).write_text(f"{own}\n", encoding="utf-8")
    check_unchanged(plan)
    file.write_text(own.replace("creative, curious", "creative, sceptical") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="was made with other synonyms: remove the runs"):
        check_unchanged(plan)


def test_another_name_on_the_hub_is_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model": {"config": None, "train_tokenizer": None, "path": "someone/one"}}
    monkeypatch.setattr("studies.find_base", lambda config, seed: Base({}, tmp_path, "weights"))
    plan = planned(tmp_path, ONE_SEED, changes=changes)
    pretend_all(plan)
    check_unchanged(plan)
    assert planned(tmp_path, ONE_SEED, changes=changes).digest() == plan.digest()
    other = planned(tmp_path, ONE_SEED, "model.path=someone/other", changes=changes)
    assert other.digest() != plan.digest()
    with pytest.raises(UserError, match=r"was made with other weights \(model\.path someone/one\): remove the runs"):
        check_unchanged(other)


def test_a_report_needs_no_checkpoint(tmp_path: Path) -> None:
    """Nor does a study end where one system has none: its runs fail, and the others go on."""
    weights, network = tmp_path / "weights", {**BASE["model"]["config"], "vocab_size": 400, "pad_token_id": 1}
    weights.mkdir()
    write_json(weights / "config.json", network)
    save_file({"one": np.zeros(1, np.float32)}, weights / "model.safetensors")
    changes = {"model": {"config": None, "train_tokenizer": None, "path": str(weights)}}
    systems = {"lora": {"tuning.method": "lora"}, "prompt": {"tuning.method": "prompt"}}
    for budget in (2000, 4000, 2000):  # the runs of another budget lie beside those of this one
        asked = {"changes": changes, "scientific": {"systems": systems}, "budget": {"trainable_parameters": budget}}
        plan = fit_budget(planned(tmp_path, ONE_SEED, **asked), lambda _: None)
        sizes = sizes_of(plan)
        save_study(plan.study)
        save_budget(plan)
        for folder, name in zip(pretend_all(plan), plan.systems, strict=True):
            (folder / "model").mkdir(exist_ok=True)
            write_json(folder / "model/config.json", network)
            assert sizes[name].trained < budget + 150
    shutil.rmtree(weights)
    found = results_of(plan.study.folder)
    assert {name: one.trained_parameters for name, one in found.systems.items()} == {
        name: size.trained for name, size in sizes.items()
    }
    assert found.missing == ()
    shutil.rmtree(plan.study.folder / "runs")
    assert set(sizes_of(plan).values()) == {UNKNOWN}
